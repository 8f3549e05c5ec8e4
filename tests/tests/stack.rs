//! Promise: `make up`, `make down`, `make restart-streamer` and `make demo` do what the README says, also after
//! something was killed. They run on ports and in a folder of their own, beside whatever else runs here.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::Receiver;

use headwater_tests::deadline::PATIENCE;
use headwater_tests::event::text;
use headwater_tests::place::{Scratch, checkout, end_of, free_port, signal, signal_group};
use serde_json::Value;

struct Stack {
    state: Scratch,
    port: u16,
    postgres_port: u16,
}

impl Stack {
    fn new() -> Self {
        Self { state: Scratch::new("stack"), port: free_port(), postgres_port: free_port() }
    }

    fn make(&self, target: &str) -> Command {
        // Where the tests run in the background, Ctrl-C is ignored and would be by make: not what a person has.
        let mut command = Command::new("env");
        command.args(["--default-signal=INT", "make"]);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let of_cargo = name.starts_with("CARGO") && !["CARGO_HOME", "CARGO_TARGET_DIR"].contains(&name.as_str());
            if of_cargo || name.starts_with("HEADWATER_") || name.starts_with("MAKE") || name == "MFLAGS" {
                command.env_remove(name);
            }
        }
        command
            .arg("--no-print-directory")
            .arg(target)
            .current_dir(checkout())
            .env("HEADWATER_STATE_DIR", self.state.path())
            .env("HEADWATER_PORT", self.port.to_string())
            .env("HEADWATER_PG_PORT", self.postgres_port.to_string())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, target: &str) -> Output {
        self.make(target).output().unwrap()
    }

    fn succeed(&self, target: &str) {
        let output = self.run(target);
        assert!(output.status.success(), "make {target}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.state.path().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    fn pid(&self, of: &str) -> u32 {
        self.read(&format!("{of}.pid")).trim().parse().unwrap()
    }

    fn variable(&self, name: &str) -> String {
        let env = self.read("env");
        let line = env.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.unwrap_or_else(|| panic!("no {name} in {env}")).to_owned()
    }

    fn psql(&self, statement: &str) -> String {
        let output = Command::new("psql").args([&self.variable("DATABASE_URL"), "-XAtc", statement]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The table numbers of the orders that were created, as the streamer tells them.
    fn created(&self) -> Vec<i64> {
        let url = format!("{}/api/v1/events/since?limit=1000", self.variable("HEADWATER_URL"));
        let output = Command::new("curl").args(["-fsS", &url]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let page: Value = serde_json::from_slice(&output.stdout).unwrap();
        let events = page["events"].as_array().unwrap().iter();
        events
            .filter(|event| event["event_type"] == "order.created")
            .map(|event| event["payload"]["table_number"].as_i64().unwrap())
            .collect()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let _ = self.run("down");
        if std::thread::panicking() {
            for log in ["postgres.log", "streamer.log"] {
                eprintln!("--- end of {log}\n{}", end_of(&self.state.path().join(log)));
            }
        }
    }
}

/// A process that has ended but that nobody has waited for yet (the machine's init may be slow) does not live.
fn lives(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| !status.contains("State:\tZ"))
}

#[test]
fn up_brings_everything_back_with_nothing_lost() {
    let stack = Stack::new();
    stack.succeed("up");
    stack.psql("insert into orders (tenant_id, table_number) values ('cafe', 1)");
    let (postgres, streamer) = (stack.pid("postgres"), stack.pid("streamer"));

    stack.succeed("up");
    assert_eq!((postgres, streamer), (stack.pid("postgres"), stack.pid("streamer")), "make up twice changes nothing");
    // The console is on, and its secret lies beside the other passwords.
    let url = format!("{}/console/api/dead-letters", stack.variable("HEADWATER_URL"));
    let secret = format!("authorization: Bearer {}", stack.read("console.password"));
    let output = Command::new("curl").args(["-fsS", &url, "-H", &secret]).output().unwrap();
    let letters: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&letters["letters"], &letters["writes"]),
        (&serde_json::json!([]), &serde_json::json!(true)),
        "{letters}"
    );

    signal(streamer, "KILL");
    stack.psql("insert into orders (tenant_id, table_number) values ('cafe', 2)");
    stack.succeed("up");
    assert_eq!(postgres, stack.pid("postgres"));
    assert_ne!(streamer, stack.pid("streamer"));

    signal(stack.pid("postgres"), "KILL");
    stack.succeed("up");
    assert_ne!(postgres, stack.pid("postgres"));
    stack.psql("insert into orders (tenant_id, table_number) values ('cafe', 3)");

    let (postgres, streamer) = (stack.pid("postgres"), stack.pid("streamer"));
    signal(streamer, "KILL");
    signal(postgres, "KILL");
    stack.succeed("up");
    stack.psql("insert into orders (tenant_id, table_number) values ('cafe', 4)");

    let streamer = stack.pid("streamer");
    stack.succeed("restart-streamer");
    assert_ne!(streamer, stack.pid("streamer"));
    assert_eq!(stack.psql("select count(*) from orders"), "4");
    let deadline = std::time::Instant::now() + PATIENCE;
    while stack.created() != [1, 2, 3, 4] {
        assert!(std::time::Instant::now() < deadline, "{:?}", stack.created());
    }

    let (postgres, streamer) = (stack.pid("postgres"), stack.pid("streamer"));
    stack.succeed("down");
    assert!(!lives(postgres) && !lives(streamer));
    stack.succeed("down");
    stack.succeed("up");
    assert_eq!(stack.psql("select count(*) from orders"), "4");
}

#[test]
fn a_pid_that_became_another_process_is_left_alone() {
    let stack = Stack::new();
    stack.succeed("up");
    let streamer = stack.pid("streamer");
    signal(streamer, "KILL");
    let mut bystander = Command::new("sleep").arg("1000").spawn().unwrap();
    std::fs::write(stack.state.path().join("streamer.pid"), bystander.id().to_string()).unwrap();
    stack.succeed("up");
    assert_ne!(bystander.id(), stack.pid("streamer"));
    std::fs::write(stack.state.path().join("postgres.pid"), bystander.id().to_string()).unwrap();
    stack.succeed("down");
    assert!(bystander.try_wait().unwrap().is_none(), "make down killed another's process");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn a_taken_port_is_named_with_a_remedy() {
    for (variable, taken) in [("HEADWATER_PORT", 0), ("HEADWATER_PG_PORT", 1)] {
        let stack = Stack::new();
        let port = [stack.port, stack.postgres_port][taken];
        let _holder = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let output = stack.run("up");
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{message}");
        assert!(message.contains(&format!("port {port}")) && message.contains(&format!("{variable}=")), "{message}");
    }
}

#[test]
fn a_streamer_that_cannot_start_tells_why() {
    let stack = Stack::new();
    let output = stack.make("up").env("HEADWATER_RING_BYTES", "lots").output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(message.contains("lots") && message.contains("streamer.log"), "{message}");
    stack.succeed("up");
}

/// A running `make demo` in a process group of its own, as in a terminal.
struct Demo {
    process: Child,
    lines: Receiver<String>,
}

impl Demo {
    fn start(stack: &Stack) -> Self {
        let mut process = stack
            .make("demo")
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(stack.state.path().join("demo.log")).unwrap())
            .spawn()
            .unwrap();
        let lines = lines_of(process.stdout.take().unwrap());
        Self { process, lines }
    }

    /// The commands that the text shows, in its order.
    fn commands(&self) -> Vec<String> {
        let mut commands = Vec::new();
        while commands.len() < 3 {
            let line = self.lines.recv_timeout(5 * PATIENCE).expect("three commands");
            if let Some(command) = line.strip_prefix("    ") {
                commands.push(command.to_owned());
            }
        }
        commands
    }

    fn interrupt(mut self) {
        signal_group(self.process.id(), "INT");
        self.process.wait().unwrap();
    }
}

fn lines_of(stdout: std::process::ChildStdout) -> Receiver<String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

#[test]
fn the_three_commands_of_the_demo_work_when_pasted() {
    let stack = Stack::new();
    let demo = Demo::start(&stack);
    let commands = demo.commands();
    let (postgres, streamer) = (stack.pid("postgres"), stack.pid("streamer"));
    let paste = |command: &str| {
        let mut bash = Command::new("bash");
        bash.args(["-c", command]).current_dir(checkout()).stdin(Stdio::null());
        bash
    };

    let mut stream = paste(&format!("exec {}", commands[0])).stdout(Stdio::piped()).spawn().unwrap();
    let blocks = lines_of(stream.stdout.take().unwrap());
    blocks.recv_timeout(PATIENCE).expect("the stream opens");
    let next = || loop {
        let line = blocks.recv_timeout(PATIENCE).expect("an event on the stream");
        if let Some(data) = line.strip_prefix("data: ") {
            return serde_json::from_str::<Value>(data).unwrap();
        }
    };

    let output = paste(&commands[1]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let event = next();
    assert_eq!((text(&event, "event_type"), text(&event, "source")), ("order.created", "capture"));

    let output = paste(&commands[2]).output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["accepted"].as_array().unwrap().len(), 1, "{answer}");
    assert_eq!(answer["rejected"].as_array().unwrap().len(), 0, "{answer}");
    let event = next();
    assert_eq!((text(&event, "event_type"), text(&event, "source")), ("order.created", "client"));

    stream.kill().unwrap();
    stream.wait().unwrap();
    demo.interrupt();
    assert!(!lives(postgres) && !lives(streamer), "Ctrl-C ends all of it");
}
