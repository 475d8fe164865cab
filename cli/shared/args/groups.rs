//! The list of verbs in `ctk --help`, by what they are for.

use clap::Command;

/// The verbs, in the order in which a newcomer meets them.
const GROUPS: [(&str, &[&str]); 6] = [
    ("Train", &["train"]),
    ("Adapt to few labels", &["finetune", "distill"]),
    ("Judge", &["eval"]),
    ("Use", &["predict", "embed", "neighbors", "analogy"]),
    ("Files of other programs", &["import", "export"]),
    ("Tools", &["preview", "data", "tokenizer", "mine", "config", "devices", "bench", "matrix", "completions", "man"]),
];

/// Columns of a line of help.
const WIDTH: usize = 80;

/// The command with its verbs listed by group.
pub fn grouped(command: Command) -> Command {
    let style = *command.get_styles().get_header();
    let name = *command.get_styles().get_literal();
    let longest = GROUPS.iter().flat_map(|(_, verbs)| *verbs).map(|verb| verb.len()).max().unwrap_or(0);
    let mut list = String::new();
    for (title, verbs) in GROUPS {
        list.push_str(&format!("{style}{title}:{style:#}\n"));
        for verb in verbs {
            let about = command.find_subcommand(verb).and_then(Command::get_about).map(ToString::to_string).unwrap_or_default();
            let lines = wrapped(&about, WIDTH - longest - 4);
            let indent = " ".repeat(longest + 4);
            let padding = " ".repeat(longest - verb.len());
            list.push_str(&format!("  {name}{verb}{name:#}{padding}  {}\n", lines.join(&format!("\n{indent}"))));
        }
        list.push('\n');
    }
    let help = "`ctk VERB --help` says more of a verb, with examples.";
    command.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{list}{help}\n\n{style}Options:{style:#}\n{{options}}{{after-help}}"
    ))
}

/// The text in lines of at most `width` columns.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is a line");
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= width {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_string());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::shared::args::Args;

    #[test]
    fn every_verb_is_in_one_group() {
        let command = Args::command();
        let mut verbs: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
        let mut listed: Vec<&str> = GROUPS.iter().flat_map(|(_, verbs)| *verbs).copied().collect();
        verbs.sort_unstable();
        listed.sort_unstable();
        assert_eq!(verbs, listed);
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        let help = grouped(Args::command()).term_width(WIDTH).render_help().to_string();
        assert!(help.lines().all(|line| line.chars().count() <= WIDTH), "{help}");
        for part in ["Train:\n  train ", "Tools:\n", "--threads", "Examples:"] {
            assert!(help.contains(part), "{part}: {help}");
        }
    }
}
