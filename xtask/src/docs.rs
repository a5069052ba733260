//! `cargo xtask docs`: API documentation, and links in the Markdown files.

use crate::workspace::Workspace;
use crate::{Result, links, process};

/// Builds the documentation and checks links; true if nothing is wrong.
///
/// # Errors
///
/// When cargo can't be started, or a file can't be read.
pub(crate) fn run(workspace: &Workspace) -> Result<bool> {
    let built = api(workspace)?;
    let linked = check_links(workspace)?;
    if built {
        println!("API documentation: {}", workspace.target.join("doc/storage_core/index.html").display());
    }
    Ok(built && linked)
}

/// Builds the API documentation; false if there are warnings.
///
/// # Errors
///
/// When cargo can't be started.
pub(crate) fn api(workspace: &Workspace) -> Result<bool> {
    let mut command = workspace.cargo();
    command.args(["doc", "--workspace", "--no-deps", "--all-features"]).env("RUSTDOCFLAGS", "-D warnings");
    Ok(process::run(command)?.success())
}

/// Prints the links that lead nowhere; false if there are any.
///
/// # Errors
///
/// When a file can't be read.
pub(crate) fn check_links(workspace: &Workspace) -> Result<bool> {
    let (files, problems) = links::check(&workspace.root)?;
    for problem in &problems {
        eprintln!("error: {problem}");
    }
    println!("links: {files} Markdown files, {} links that lead nowhere", problems.len());
    Ok(problems.is_empty())
}
