//! An nginx of a test's own: the real server, on a free port, all its files in a scratch folder.

use std::path::Path;
use std::process::Stdio;

use tokio::process::{Child, Command};

use crate::deadline::eventually;
use crate::place::{Scratch, as_server_user, end_of, free_port};

/// A running server.
#[derive(Debug)]
pub struct Nginx {
    scratch: Scratch,
    port: u16,
    server: Child,
}

impl Nginx {
    /// Starts it. `http` stands inside of `http { … }`, as pages of the guide show it: for streamers on the ports 4000 and 4001, which are
    /// `streamer` here, listening on 8080, with caches below `/var/cache/nginx`.
    pub async fn start(http: &str, streamer: u16) -> Self {
        let (scratch, port) = (Scratch::new("nginx"), free_port());
        let folder = scratch.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {folder}/{name};\n"))
            .concat();
        let configuration = format!(
            "daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nevents {{ worker_connections 512; }}\n\
             http {{\naccess_log off;\n{temporary}{}\n}}\n",
            http.replace("/var/cache/nginx", &folder.to_string())
                .replace("127.0.0.1:8080", &format!("127.0.0.1:{port}"))
                .replace("127.0.0.1:4000", &format!("127.0.0.1:{streamer}"))
                .replace("127.0.0.1:4001", &format!("127.0.0.1:{streamer}"))
        );
        let file = scratch.path().join("nginx.conf");
        std::fs::write(&file, configuration).unwrap();
        let log = scratch.path().join("error.log");
        // The package's folder of programs is in nobody's path but root's.
        let command = as_server_user(Path::new("/usr/sbin/nginx"));
        let server = Command::from(command)
            .arg("-p")
            .arg(scratch.path())
            .arg("-c")
            .arg(&file)
            .arg("-e")
            .arg(&log)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("nginx (Debian's package of that name)");
        let mut nginx = Self { scratch, port, server };
        eventually("nginx to listen", || {
            let ended = nginx.server.try_wait().unwrap();
            assert!(ended.is_none(), "nginx ended by itself: {}", end_of(&log));
            async move { tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok() }
        })
        .await;
        nginx
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- end of nginx's log\n{}", end_of(&self.scratch.path().join("error.log")));
        }
    }
}
