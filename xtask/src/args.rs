//! The command line.

use crate::{Failure, Result};

/// A command with its options.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Help(Topic),
    Test(TestOptions),
    Ci,
    Matrix { backend: Option<String> },
    Bench(Vec<String>),
    Docs,
}

/// What help was asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topic {
    All,
    Test,
    Ci,
    Matrix,
    Bench,
    Docs,
}

/// Options of `cargo xtask test`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct TestOptions {
    /// Provision what is missing, and count a skip as a failure.
    pub(crate) all: bool,
    /// Only what concerns this backend.
    pub(crate) backend: Option<String>,
    /// Neither use nor start servers.
    pub(crate) no_servers: bool,
    /// Run the long tests too, and the others for longer.
    pub(crate) soak: bool,
    /// Handed to the test runner as they are.
    pub(crate) runner: Vec<String>,
}

const COMMANDS: [(&str, Topic); 5] =
    [("test", Topic::Test), ("ci", Topic::Ci), ("matrix", Topic::Matrix), ("bench", Topic::Bench), ("docs", Topic::Docs)];
const TEST_OPTIONS: [&str; 5] = ["--all", "--backend", "--no-servers", "--soak", "--help"];

/// Reads the arguments after `cargo xtask`.
pub(crate) fn parse(arguments: &[String]) -> Result<Command> {
    let Some((name, rest)) = arguments.split_first() else {
        return Ok(Command::Help(Topic::All));
    };
    if is_help(name) {
        return Ok(Command::Help(rest.first().map_or(Ok(Topic::All), |name| topic(name))?));
    }
    let topic = topic(name)?;
    // Arguments of `bench` belong to the benchmarks, their `--help` too.
    if topic != Topic::Bench && rest.iter().take_while(|argument| *argument != "--").any(|argument| is_help(argument)) {
        return Ok(Command::Help(topic));
    }
    match topic {
        Topic::All => Ok(Command::Help(Topic::All)),
        Topic::Test => test_options(rest).map(Command::Test),
        Topic::Ci => nothing_more(name, rest).map(|()| Command::Ci),
        Topic::Docs => nothing_more(name, rest).map(|()| Command::Docs),
        Topic::Matrix => matrix_options(rest),
        Topic::Bench => {
            let rest = rest.strip_prefix(&["--".to_owned()]).unwrap_or(rest);
            Ok(Command::Bench(rest.to_vec()))
        }
    }
}

/// The one of `names` that was probably meant.
pub(crate) fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .filter(|(distance, name)| *distance <= 2.max(name.len() / 3) && *distance < name.len())
        .min()
        .map(|(_, name)| name)
}

fn topic(name: &str) -> Result<Topic> {
    if let Some((_, topic)) = COMMANDS.iter().find(|(known, _)| *known == name) {
        return Ok(*topic);
    }
    Err(unknown("command", name, COMMANDS.iter().map(|(known, _)| *known)))
}

fn unknown<'a>(what: &str, wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Failure {
    let hint = nearest(wrong, names).map_or_else(String::new, |name| format!("; did you mean '{name}'?"));
    Failure::Usage(format!("unknown {what} '{wrong}'{hint} (`cargo xtask --help` lists what there is)"))
}

fn is_help(argument: &str) -> bool {
    matches!(argument, "-h" | "--help" | "help")
}

fn nothing_more(command: &str, rest: &[String]) -> Result<()> {
    match rest.first() {
        None => Ok(()),
        Some(first) => Err(Failure::Usage(format!("`cargo xtask {command}` takes no argument, but got '{first}'"))),
    }
}

fn test_options(arguments: &[String]) -> Result<TestOptions> {
    let mut options = TestOptions::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--all" => options.all = true,
            "--no-servers" => options.no_servers = true,
            "--soak" => options.soak = true,
            "--backend" => options.backend = Some(backend_name(rest.next())?),
            "--" => options.runner = rest.by_ref().cloned().collect(),
            other => match other.strip_prefix("--backend=") {
                Some(name) => options.backend = Some(backend_name(Some(&name.to_owned()))?),
                None => return Err(unknown_option(other)),
            },
        }
    }
    if options.all && options.no_servers {
        return Err(Failure::Usage(
            "--all runs everything and --no-servers leaves the servers out: choose one of them".to_owned(),
        ));
    }
    Ok(options)
}

fn unknown_option(option: &str) -> Failure {
    if option.starts_with('-') {
        return unknown("option", option, TEST_OPTIONS);
    }
    Failure::Usage(format!("unexpected argument '{option}'; arguments for the test runner come after `--`"))
}

fn matrix_options(arguments: &[String]) -> Result<Command> {
    let options = test_options(arguments)?;
    let plain = TestOptions { backend: options.backend.clone(), ..TestOptions::default() };
    if options != plain {
        return Err(Failure::Usage("`cargo xtask matrix` takes no option but --backend".to_owned()));
    }
    Ok(Command::Matrix { backend: options.backend })
}

/// Accepts `sqlite` and, because it is what the folders are called, `storage-sqlite`.
fn backend_name(value: Option<&String>) -> Result<String> {
    let name = value.map(|value| value.strip_prefix("storage-").unwrap_or(value)).unwrap_or_default();
    if name.is_empty() || name.starts_with('-') {
        return Err(Failure::Usage("--backend needs a name, for example `--backend sqlite`".to_owned()));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    fn usage(line: &str) -> String {
        match parsed(line) {
            Err(Failure::Usage(message)) => message,
            other => panic!("expected a usage error for '{line}', got {other:?}"),
        }
    }

    #[test]
    fn help_in_all_its_forms() {
        for line in ["", "help", "--help", "-h"] {
            assert_eq!(parsed(line).unwrap(), Command::Help(Topic::All), "{line}");
        }
        for line in ["help test", "test --help", "test --all -h"] {
            assert_eq!(parsed(line).unwrap(), Command::Help(Topic::Test), "{line}");
        }
    }

    #[test]
    fn every_option_of_test() {
        let expected = TestOptions {
            all: true,
            backend: Some("sqlite".to_owned()),
            no_servers: false,
            soak: true,
            runner: vec!["--help".to_owned(), "--all".to_owned()],
        };
        let line = "test --all --backend sqlite --soak -- --help --all";
        assert_eq!(parsed(line).unwrap(), Command::Test(expected));
        let Command::Test(options) = parsed("test --backend=storage-fs --no-servers").unwrap() else { panic!("not test") };
        assert_eq!(options.backend.as_deref(), Some("fs"));
        assert!(options.no_servers);
    }

    #[test]
    fn mistakes_are_named_with_the_nearest_name() {
        assert!(usage("tset").contains("unknown command 'tset'; did you mean 'test'?"));
        assert!(usage("matrx").contains("did you mean 'matrix'?"));
        assert!(!usage("frobnicate").contains("did you mean"));
        assert!(usage("test --backnd sqlite").contains("did you mean '--backend'?"));
        assert!(usage("test --backend").contains("needs a name"));
        assert!(usage("test --backend --all").contains("needs a name"));
        assert!(usage("test records").contains("come after `--`"));
        assert!(usage("test --all --no-servers").contains("choose one"));
        assert!(usage("ci --all").contains("takes no argument"));
        assert!(usage("matrix --soak").contains("no option but --backend"));
    }

    #[test]
    fn arguments_of_bench_are_its_own() {
        let expected = Command::Bench(vec!["--help".to_owned(), "queues".to_owned()]);
        assert_eq!(parsed("bench --help queues").unwrap(), expected);
        assert_eq!(parsed("bench -- --help queues").unwrap(), expected);
    }
}
