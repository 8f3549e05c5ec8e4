//! What time brings: tokens that expire, heartbeats, and sockets that have taken nothing for too long.

use super::Reactor;
use crate::tally::Reason;
use bytes::Bytes;
use headwater_model::cursor::Cursor;
use std::time::Instant;

/// Heartbeats are looked for so many times between two of them.
const SWEEPS_PER_HEARTBEAT: u32 = 8;

impl Reactor {
    /// What time brings: tokens that expire, heartbeats for those who have heard nothing for a while.
    pub(super) fn sweep(&mut self) {
        if self.readers.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some((until, key)) = self.expiries.first().copied().filter(|(until, _)| *until <= now) {
            // Its stream says that it has expired.
            self.expiries.remove(&(until, key));
            let reader = self.remove(key);
            self.give_back(reader);
        }
        let Some(epoch) = self.epoch.filter(|_| now >= self.sweep_at) else { return };
        self.sweep_at = now + self.heartbeat.min(self.write_timeout) / SWEEPS_PER_HEARTBEAT;
        let cursor = Cursor { epoch, position: self.at.position, offset: Some(self.at.offset) };
        let beat = Bytes::from(format!("id: {cursor}\n\n"));
        let (mut gone, mut hopeless) = (Vec::new(), Vec::new());
        for (key, reader) in &mut self.readers {
            let waited = now.duration_since(reader.written);
            if reader.mark.is_some() && waited >= self.write_timeout {
                tracing::debug!("a reader takes nothing; it is let go, its cursor stays good");
                hopeless.push(key);
            } else if reader.mark.is_none() && waited >= self.heartbeat {
                reader.written = now;
                match reader.outbox.send(&mut reader.socket, beat.clone()) {
                    Ok(true) => {}
                    Ok(false) => {
                        reader.mark = Some(self.at);
                        self.channels.get_mut(reader.channel).lagging += 1;
                    }
                    Err(_) => gone.push(key),
                }
            }
        }
        for key in gone {
            self.let_go(key);
        }
        for key in hopeless {
            self.tally.end(Reason::Slow);
            let reader = self.remove(key);
            self.pass_back(reader, true);
        }
    }
}
