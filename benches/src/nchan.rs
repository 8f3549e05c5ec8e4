//! nginx with nchan, from the Debian packages that `scripts/bench` unpacked: one worker, as nchan shares nothing between
//! workers but by messages.

use std::process::Command;

use headwater_tests::place::{Scratch, free_port};

use crate::process::{Server, folder, open_files_limit};

/// The running server and its folder.
#[derive(Debug)]
pub(crate) struct Nchan {
    pub(crate) server: Server,
    _scratch: Scratch,
}

/// Starts it: subscribe at `/`, publish one message by `POST /publish`.
pub(crate) async fn start(connections: usize) -> Nchan {
    let root = folder("HEADWATER_BENCH_NGINX");
    let scratch = Scratch::new("nchan");
    let port = free_port();
    let path = scratch.path().display();
    let user = if std::env::var("USER").is_ok_and(|user| user == "root") { "user root;" } else { "" };
    let configuration = format!(
        "load_module {root}/usr/lib/nginx/modules/ngx_nchan_module.so;
         {user} daemon off; worker_processes 1; pid {path}/pid; error_log {path}/error.log warn;
         worker_rlimit_nofile {files};
         events {{ worker_connections {slots}; }}
         http {{
           access_log off; keepalive_requests 1000000; tcp_nodelay on;
           client_body_temp_path {path}/body; proxy_temp_path {path}/proxy; fastcgi_temp_path {path}/fastcgi;
           uwsgi_temp_path {path}/uwsgi; scgi_temp_path {path}/scgi;
           nchan_shared_memory_size 256M;
           server {{
             listen 127.0.0.1:{port} backlog=4096;
             location = /publish {{ nchan_publisher; nchan_channel_id bench; nchan_message_buffer_length 1000; }}
             location = / {{
               nchan_subscriber eventsource; nchan_channel_id bench; nchan_subscriber_first_message newest;
               nchan_subscriber_timeout 0;
             }}
           }}
         }}",
        root = root.display(),
        files = open_files_limit(),
        // It takes more of them than there are connections.
        slots = connections * 2 + 1_024,
    );
    let file = scratch.path().join("nginx.conf");
    std::fs::write(&file, configuration).unwrap();
    let mut command = Command::new(root.join("usr/sbin/nginx"));
    command.arg("-p").arg(scratch.path()).arg("-c").arg(file).arg("-e").arg(scratch.path().join("error.log"));
    Nchan { server: Server::start(command, port).await, _scratch: scratch }
}
