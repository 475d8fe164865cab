//! `ctk man`: the manual's pages, from the same source as `--help`.

use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use ctk_core::error::Result;
use ctk_core::store::files;

use crate::shared::args::Over;
use crate::shared::output;

pub fn run(folder: &Path, over: &Over, mut command: Command) -> Result<()> {
    command.build();
    let mut pages = Vec::new();
    render(&command, command.get_name(), &mut pages)?;
    pages.iter().try_for_each(|(name, _)| over.allows(&folder.join(name)))?;
    pages.iter().try_for_each(|(name, page)| files::write(&folder.join(name), page))?;
    output::line(format!("{} pages in {}", pages.len(), folder.display()))
}

/// The page of `command`, which is called `name` with its parents' names before it, and those of the commands below it.
fn render(command: &Command, name: &str, pages: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let mut page = Vec::new();
    Man::new(command.clone().name(name.to_string()).help_template("{all-args}")).render(&mut page)?;
    pages.push((format!("{name}.1"), page));
    let below = command.get_subcommands().filter(|below| below.get_name() != "help");
    for below in below {
        render(below, &format!("{name}-{}", below.get_name()), pages)?;
    }
    Ok(())
}
