//! A kubectl with a terminal of its own, as a person has it.

use std::{
    io::{BufReader, Read as _, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// See the module.
pub(crate) struct Console {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    seen: String,
}

impl Console {
    /// Runs a command in a terminal of 33 lines and 99 columns, made by script(1) of util-linux.
    pub(crate) fn open(command: &Command) -> Console {
        let line: Vec<String> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| format!("'{}'", word.to_str().unwrap()))
            .collect();
        let line = format!("stty rows 33 cols 99; {}", line.join(" "));
        let mut script = Command::new("script");
        script.args(["-q", "-e", "-c", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        for (name, value) in command.get_envs() {
            script.env(name, value.unwrap_or_default());
        }
        let mut child = script.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Console { child, stdin, stdout, seen: String::new() }
    }

    /// Reads until this is shown; what was shown until then.
    pub(crate) fn until(&mut self, wanted: &str) -> String {
        let mut byte = [0; 1];
        while !self.seen.contains(wanted) {
            let read = self.stdout.read(&mut byte).unwrap();
            assert!(read == 1, "the terminal closed before {wanted:?}: {:?}", self.seen);
            self.seen.push(byte[0] as char);
        }
        std::mem::take(&mut self.seen)
    }

    /// Types something.
    pub(crate) fn types(&mut self, text: &str) {
        self.stdin.write_all(text.as_bytes()).unwrap();
    }

    /// Reads to the end; what was shown since, and the exit code.
    pub(crate) fn ends(mut self) -> (String, Option<i32>) {
        let mut rest = Vec::new();
        self.stdout.read_to_end(&mut rest).unwrap();
        self.seen.push_str(&String::from_utf8_lossy(&rest));
        (std::mem::take(&mut self.seen), self.child.wait().unwrap().code())
    }
}
