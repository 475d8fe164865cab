//! The command line as a library. A program with a modality of its own gets the same verbs with one call of [`main`].
//!
//! ```no_run
//! // In a crate of your own, beside the built-in ones:
//! fn main() -> std::process::ExitCode {
//!     ctk::main(&[&ctk_vision::Vision, &ctk_text::Word2Vec, &ctk_text::Sentences /*, &Mine */])
//! }
//! ```
//!
//! `verbs` has one file a verb, `shared` what several verbs use, `studies` the verbs that make many runs. No file here names a tensor.
//! Results go to stdout, progress and notes to stderr. Exit codes: 0 for success, 1 for a failure while running, 2 for a mistake in the
//! command line or the config, and 128 plus the signal's number after a signal.

mod shared;
mod studies;
mod verbs;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use ctk_core::error::{Error, ErrorKind, Result};
use ctk_core::modality::Modality;

use shared::args::{Args, Verb};
use shared::{args, keys, output, signals};
use verbs::{
    bench, config, data, devices, distill, embed, eval, export, finetune, import, man, mine, neighbors, predict, preview,
    tokenizer, train,
};

pub use studies::matrix;

/// The modalities that a program is built with.
pub type Modalities<'a> = &'a [&'a dyn Modality];

/// Parses the process's arguments, runs the verb, and prints an error as one message with a hint. Returns the exit code.
pub fn main(modalities: Modalities) -> ExitCode {
    let args = match parse(modalities, std::env::args_os()) {
        Ok(args) => args,
        // clap prints help to stdout with code 0 and mistakes to stderr with code 2.
        Err(e) => hinted(e, modalities, &std::env::args().skip(1).collect::<Vec<_>>()).exit(),
    };
    match signals::listen().and_then(|()| run(args, modalities)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            output::error(&e);
            let signal = signals::exit_code().filter(|_| e.kind() == ErrorKind::Interrupted);
            ExitCode::from(signal.unwrap_or(e.exit_code()))
        }
    }
}

fn parse(modalities: Modalities, from: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Args, clap::Error> {
    let matches = command(modalities).try_get_matches_from(from)?;
    Args::from_arg_matches(&matches)
}

/// Adds a hint to a mistake that users of other programs often make: a recipe's key as a flag, or data without `--data`.
fn hinted(mut error: clap::Error, modalities: Modalities, arguments: &[String]) -> clap::Error {
    use clap::error::{ContextKind, ContextValue};
    let Some(ContextValue::String(odd)) = error.get(ContextKind::InvalidArg) else { return error };
    if error.kind() != clap::error::ErrorKind::UnknownArgument {
        return error;
    }
    let named = modalities.iter().find(|m| arguments.iter().any(|argument| argument == m.name())).or(modalities.first());
    let Some(modality) = named else { return error };
    let tip = match odd.strip_prefix("--") {
        Some(flag) => {
            let flag = flag.split('=').next().unwrap_or(flag);
            let keys = keys::meant(*modality, flag);
            let sets: Vec<String> = keys.iter().take(3).map(|key| format!("--set {key}=…")).collect();
            if sets.is_empty() { None } else { Some(format!("a recipe's key is set by {}", sets.join(" or "))) }
        }
        None if arguments.first().is_some_and(|verb| verb == "train") => Some(format!("data is given by --data {odd}")),
        None => None,
    };
    if let Some(tip) = tip {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// The command line with the names of the modalities filled in, so that help and completions know them.
fn command(modalities: Modalities) -> clap::Command {
    fn fill(command: clap::Command, names: &[&'static str]) -> clap::Command {
        let has = command.get_arguments().any(|a| a.get_id() == "modality");
        let command = match has {
            true => command.mut_arg("modality", |a| a.value_parser(clap::builder::PossibleValuesParser::new(names.to_vec()))),
            false => command,
        };
        let subs: Vec<String> = command.get_subcommands().map(|s| s.get_name().to_string()).collect();
        subs.into_iter().fold(command, |c, sub| c.mut_subcommand(sub, |s| fill(s, names)))
    }
    let names: Vec<&'static str> = modalities.iter().map(|m| m.name()).collect();
    args::grouped(fill(Args::command(), &names)).version(version())
}

/// Version, commit, features and the instruction set that kernels run by on this machine.
fn version() -> String {
    let features: Vec<&str> = [("cuda", cfg!(feature = "cuda")), ("heif", cfg!(feature = "heif"))]
        .iter()
        .filter(|(_, on)| *on)
        .map(|(name, _)| *name)
        .collect();
    format!(
        "{} (commit {}, features: {}, instruction set: {})",
        env!("CARGO_PKG_VERSION"),
        option_env!("CTK_COMMIT").unwrap_or("not known"),
        if features.is_empty() { "none".to_string() } else { features.join(", ") },
        ctk_core::device::isa(),
    )
}

fn run(args: Args, modalities: Modalities) -> Result<()> {
    ctk_core::device::set_threads(args.threads())?;
    match args.verb {
        Verb::Train(verb) => train::run(verb, modalities),
        Verb::Finetune(verb) => finetune::run(verb, modalities),
        Verb::Distill(verb) => distill::run(verb, modalities),
        Verb::Predict(verb) => predict::run(verb, modalities),
        Verb::Mine(verb) => mine::run(verb, modalities),
        Verb::Tokenizer(verb) => tokenizer::run(verb),
        Verb::Eval(verb) => eval::run(verb, modalities),
        Verb::Import(verb) => import::run(verb, modalities),
        Verb::Embed(verb) => embed::run(verb, modalities),
        Verb::Neighbors(verb) => neighbors::run(verb, modalities),
        Verb::Analogy(verb) => neighbors::analogy(verb, modalities),
        Verb::Export(verb) => export::run(verb, modalities),
        Verb::Preview(verb) => preview::run(verb, modalities),
        Verb::Bench(verb) => bench::run(verb, modalities),
        Verb::Matrix(verb) => matrix::run(verb, modalities),
        Verb::Config(verb) => config::run(verb, modalities),
        Verb::Data(verb) => data::run(verb, modalities),
        Verb::Devices(verb) => devices::run(&verb),
        Verb::Man { folder, over } => man::run(&folder, &over, command(modalities)),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command(modalities), "ctk", &mut script);
            output::bytes(&script)
        }
    }
}

/// The modality called `name`.
fn modality<'a>(modalities: Modalities<'a>, name: &str) -> Result<&'a dyn Modality> {
    modalities.iter().copied().find(|m| m.name() == name).ok_or_else(|| {
        let known: Vec<_> = modalities.iter().map(|m| m.name()).collect();
        Error::usage(format!("this ctk knows no modality `{name}`")).hint(format!("it knows {}", known.join(", ")))
    })
}
