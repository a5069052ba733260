//! `storage completions`.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::args::Cli;
use crate::context::Context;
use crate::exit::Failure;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  storage completions bash > ~/.local/share/bash-completion/completions/storage
  storage completions zsh  > ~/.zfunc/_storage
  storage completions fish > ~/.config/fish/completions/storage.fish")]
pub(crate) struct CompletionsArgs {
    /// bash, zsh, fish, elvish or powershell
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs, context: &Context) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "storage", &mut script);
    context.out.bytes(&script)
}
