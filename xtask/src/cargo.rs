//! Runs cargo.

use std::{
    env,
    ffi::OsString,
    process::{Command, Stdio},
};

use crate::Result;

/// The cargo that runs this program, so that the toolchain stays the same.
fn cargo() -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from(env!("CARGO")));
    let mut command = Command::new(program);
    // A target directory or a toolchain set outside stays; the workspace is always this one.
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command
}

/// Runs cargo with `args` and shows what it prints.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    run_with_env(args, &[])
}

/// Runs cargo with `args` and more variables, and shows what it prints.
pub(crate) fn run_with_env(args: &[&str], variables: &[(&str, &str)]) -> Result<()> {
    let line = command_line(args, variables);
    println!("$ {line}");
    let status = cargo().args(args).envs(variables.iter().copied()).status()?;
    if status.success() { Ok(()) } else { Err(format!("`{line}` failed ({status})").into()) }
}

/// What cargo prints with `args`.
pub(crate) fn output(args: &[&str]) -> Result<String> {
    let output = cargo().args(args).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("`{}` failed ({})", command_line(args, &[]), output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Whether cargo has the subcommand `name`.
pub(crate) fn has(name: &str) -> bool {
    let quiet = || Stdio::null();
    let status = cargo().args([name, "--version"]).stdout(quiet()).stderr(quiet()).status();
    status.is_ok_and(|status| status.success())
}

/// The line that does the same in a shell.
fn command_line(args: &[&str], variables: &[(&str, &str)]) -> String {
    let quoted = |text: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,./:{}".contains(c);
        if !text.is_empty() && text.chars().all(plain) {
            text.to_owned()
        } else {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
    };
    let variables = variables.iter().map(|(name, value)| format!("{name}={}", quoted(value)));
    let args = args.iter().map(|arg| quoted(arg));
    variables.chain(["cargo".to_owned()]).chain(args).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_pasted_into_a_shell() {
        let line = command_line(&["doc", "--x=a,b", "it's"], &[("RUSTDOCFLAGS", "-D warnings")]);
        assert_eq!(line, r"RUSTDOCFLAGS='-D warnings' cargo doc --x=a,b 'it'\''s'");
    }
}
