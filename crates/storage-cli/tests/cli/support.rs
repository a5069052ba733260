//! Running the binary.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// Tasks that are sent over the queues at `url` are run by a worker's program, and their results are found; rows go into SQLite, beside them.
pub(crate) fn carries_the_tasks_of_a_worker(url: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("storage.toml", format!("task_queue = \"{url}\"\n"));
    for n in 0..5 {
        sandbox.ok(&["task", "submit", "k", "--id", &n.to_string(), "--text", &format!("text {n}")]);
    }
    let program = sandbox.script("echo.sh", "printf '%s: ' \"$TASK_ID\"; cat");
    let ran = sandbox.run(&["worker", "--drain", "--json", "--", &program]);
    assert_eq!(ran.json().last().unwrap()["done"], 5);
    for n in 0..5 {
        assert_eq!(sandbox.ok(&["result", "get", &n.to_string()]), format!("{n}: text {n}\n"));
    }
    sandbox
}

/// A fresh folder to run commands in.
pub(crate) struct Sandbox(TempDir);

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// A shell script that can be run.
    pub(crate) fn script(&self, name: &str, body: &str) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.write(name, format!("#!/bin/sh\n{body}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        format!("./{name}")
    }

    /// A named pipe: whoever opens it waits for the other side.
    pub(crate) fn fifo(&self, name: &str) -> PathBuf {
        assert!(Command::new("mkfifo").arg(self.path(name)).status().unwrap().success());
        self.path(name)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_storage"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.args(args).current_dir(self.folder()).env_clear().env("PATH", path);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::new(args, self.command(args).output().unwrap())
    }

    pub(crate) fn run_with(&self, args: &[&str], stdin: &[u8]) -> Ran {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let bytes = stdin.to_vec();
        let feeding = std::thread::spawn(move || {
            // The command may end before it has read all of it.
            let _ = pipe.write_all(&bytes);
        });
        let output = child.wait_with_output().unwrap();
        feeding.join().unwrap();
        Ran::new(args, output)
    }

    /// Runs a command that must succeed; answers what it wrote.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        self.run(args).ok()
    }

    /// Runs a command that must fail with this code and one line on stderr; answers that.
    pub(crate) fn fails(&self, code: i32, args: &[&str]) -> String {
        self.run(args).fails(code)
    }

    /// Runs a command with `--json` that must succeed; answers the lines.
    pub(crate) fn json(&self, args: &[&str]) -> Vec<Value> {
        self.run(&[args, &["--json"]].concat()).json()
    }

    /// The only line of [`json`](Self::json).
    pub(crate) fn json1(&self, args: &[&str]) -> Value {
        let mut lines = self.json(args);
        assert_eq!(lines.len(), 1, "{args:?}: {lines:?}");
        lines.remove(0)
    }

    pub(crate) fn start(&self, args: &[&str]) -> Running {
        Running(self.command(args).spawn().unwrap())
    }
}

/// A command that has ended.
pub(crate) struct Ran {
    pub(crate) what: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn new(args: &[&str], output: Output) -> Self {
        let stderr = String::from_utf8(output.stderr).unwrap();
        Self { what: args.join(" "), code: output.status.code(), stdout: output.stdout, stderr }
    }

    fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    pub(crate) fn ok(&self) -> String {
        assert_eq!(self.code, Some(0), "{}\n{}{}", self.what, self.text(), self.stderr);
        self.text()
    }

    pub(crate) fn json(&self) -> Vec<Value> {
        let lines = self.ok();
        lines.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{}: {line}: {e}", self.what))).collect()
    }

    pub(crate) fn fails(&self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{}\n{}{}", self.what, String::from_utf8_lossy(&self.stdout), self.stderr);
        assert!(self.stderr.starts_with("storage: "), "{}: {}", self.what, self.stderr);
        assert_eq!(self.stderr.lines().count(), 1, "{}: {}", self.what, self.stderr);
        self.stderr.clone()
    }
}

/// A command that runs; killed when it is dropped.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Lines of stdout as they come.
    pub(crate) fn lines(&mut self) -> std::io::Lines<BufReader<ChildStdout>> {
        BufReader::new(self.0.stdout.take().unwrap()).lines()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.0.id(), name);
    }

    /// Waits for the end.
    pub(crate) fn end(mut self) -> Ran {
        let mut output = Output { status: self.0.wait().unwrap(), stdout: Vec::new(), stderr: Vec::new() };
        use std::io::Read as _;
        if let Some(mut stdout) = self.0.stdout.take() {
            stdout.read_to_end(&mut output.stdout).unwrap();
        }
        if let Some(mut stderr) = self.0.stderr.take() {
            stderr.read_to_end(&mut output.stderr).unwrap();
        }
        Ran::new(&["(started)"], output)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

/// Waits until something holds that no event tells of.
pub(crate) fn until(what: &str, holds: impl Fn() -> bool) {
    let started = std::time::Instant::now();
    while !holds() {
        assert!(started.elapsed().as_secs() < 30, "waited too long: {what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
