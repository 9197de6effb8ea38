//! Filters of system calls: profiles as data, compiled to the classic BPF the kernel takes (seccomp(2)).

mod compile;
mod profile;
mod syscalls;

use std::path::Path;

use serde::Deserialize;

use crate::spec::SeccompProfile;

/// What is done with a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// It goes on.
    Allow,
    /// It fails with this number.
    Errno(i32),
    /// The process is killed.
    KillProcess,
    /// The thread is killed.
    KillThread,
    /// The thread gets SIGSYS.
    Trap,
    /// A tracer decides; without one it fails with ENOSYS.
    Trace(u16),
    /// It goes on and is logged by the kernel.
    Log,
}

/// A filter before it is compiled. Of rules for the same call the first that fits decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Profile {
    default_action: Action,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    names: Vec<String>,
    action: Action,
    /// All must hold.
    arguments: Vec<Argument>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Argument {
    index: u32,
    operator: Operator,
    value: u64,
    mask: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    MaskedEqual,
}

/// The program for a container with these capabilities; `None` when every call is allowed.
///
/// # Errors
/// A sentence: the profile cannot be read, or names what this architecture or kernel does not have.
pub(crate) fn program(seccomp: &SeccompProfile, capabilities: u64) -> Result<Option<Vec<libc::sock_filter>>, String> {
    let profile = match seccomp {
        SeccompProfile::Unconfined => return Ok(None),
        SeccompProfile::RuntimeDefault => profile::profile(capabilities),
        SeccompProfile::Localhost(path) => read(path)?,
    };
    compile::compile(&profile).map(Some)
}

/// The JSON of the OCI runtime specification (`linux.seccomp`).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    default_action: String,
    default_errno_ret: Option<u16>,
    #[serde(default)]
    syscalls: Vec<DocumentRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DocumentRule {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u16>,
    #[serde(default)]
    args: Vec<DocumentArgument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DocumentArgument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

fn read(path: &Path) -> Result<Profile, String> {
    let text = std::fs::read(path).map_err(|error| format!("cannot load seccomp profile {path:?}: {error}"))?;
    parse(&text).map_err(|reason| format!("cannot load seccomp profile {path:?}: {reason}"))
}

fn parse(text: &[u8]) -> Result<Profile, String> {
    let document: Document = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let rules = document.syscalls.into_iter().map(|rule| {
        let arguments = rule.args.iter().map(|argument| {
            let (operator, value, mask) = match argument.op.as_str() {
                "SCMP_CMP_EQ" => (Operator::Equal, argument.value, 0),
                "SCMP_CMP_NE" => (Operator::NotEqual, argument.value, 0),
                "SCMP_CMP_LT" => (Operator::Less, argument.value, 0),
                "SCMP_CMP_LE" => (Operator::LessOrEqual, argument.value, 0),
                "SCMP_CMP_GT" => (Operator::Greater, argument.value, 0),
                "SCMP_CMP_GE" => (Operator::GreaterOrEqual, argument.value, 0),
                "SCMP_CMP_MASKED_EQ" => (Operator::MaskedEqual, argument.value_two, argument.value),
                other => return Err(format!("unknown operator {other:?}")),
            };
            if argument.index > 5 {
                return Err(format!("a system call has no argument {}", argument.index));
            }
            Ok(Argument { index: argument.index, operator, value, mask })
        });
        Ok(Rule {
            arguments: arguments.collect::<Result<_, String>>()?,
            action: action(&rule.action, rule.errno_ret)?,
            names: rule.names,
        })
    });
    Ok(Profile {
        default_action: action(&document.default_action, document.default_errno_ret)?,
        rules: rules.collect::<Result<_, String>>()?,
    })
}

fn action(name: &str, errno: Option<u16>) -> Result<Action, String> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_ERRNO" => Action::Errno(errno.map_or(libc::EPERM, i32::from)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_TRACE" => Action::Trace(errno.unwrap_or(1)),
        "SCMP_ACT_LOG" => Action::Log,
        other => return Err(format!("unknown action {other:?}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_profile_compiles_for_every_set_of_capabilities() {
        for capabilities in [0, 0xa804_25fb, crate::capability::ALL] {
            let program = compile::compile(&profile::profile(capabilities)).unwrap();
            assert!(program.len() < 1024, "{} instructions", program.len());
        }
    }

    #[test]
    fn a_profile_of_the_common_format_is_read() {
        let profile = parse(
            br#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"syscalls":[
                {"names":["mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":38,
                 "args":[{"index":2,"value":511,"valueTwo":1,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#,
        )
        .unwrap();
        assert_eq!(profile.default_action, Action::Allow);
        assert_eq!(profile.rules.len(), 1);
        assert_eq!(profile.rules[0].action, Action::Errno(38));
        assert_eq!(profile.rules[0].arguments[0].mask, 511);
    }

    #[test]
    fn a_profile_with_an_action_nobody_knows_is_refused() {
        assert!(parse(br#"{"defaultAction":"SCMP_ACT_SMILE"}"#).unwrap_err().contains("SMILE"));
    }
}
