//! `ctk devices`: the devices of this machine, what is missing to use them, and the self-test.

use ctk_core::Device;
use ctk_core::device::{Library, Listed, Survey};
use ctk_core::error::{Error, Result};
use ctk_core::self_test::{self, Sizes, Verdict};
use serde_json::{Value, json};

use crate::shared::args::Devices;
use crate::shared::output;

pub fn run(args: &Devices) -> Result<()> {
    let survey = Survey::new();
    let mut figures = json!({
        "cpu": { "name": "cpu", "instruction_set": ctk_core::device::isa() },
        "cuda": survey.built, "usable": survey.usable().map(|number| format!("cuda:{number}")),
        "devices": survey.devices.iter().map(device).collect::<Vec<_>>(),
        "libraries": survey.libraries.iter().map(library).collect::<Vec<_>>(),
    });
    if let Some(failure) = &survey.failure {
        figures["failure"] = json!(failure);
    }
    if !args.show.json {
        output::bytes(list(&survey).as_bytes())?;
    }
    let verdicts = if args.self_test { Some(compare(args)?) } else { None };
    if let Some((name, verdicts)) = &verdicts {
        figures["self_test"] = json!({
            "device": name, "passed": verdicts.iter().all(Verdict::right),
            "checks": verdicts.iter().map(check).collect::<Vec<_>>(),
        });
    }
    if args.show.json {
        output::line(&figures)?;
    }
    match verdicts {
        Some((name, verdicts)) => passed(&name, &verdicts, args.show.json),
        None => Ok(()),
    }
}

fn device(listed: &Listed) -> Value {
    let [major, minor] = listed.capability;
    json!({
        "name": format!("cuda:{}", listed.number), "model": listed.name, "memory_bytes": listed.memory,
        "compute_capability": format!("{major}.{minor}"), "trouble": listed.trouble(),
    })
}

fn library(library: &Library) -> Value {
    let version = library.version.map(|[major, minor]| format!("{major}.{minor}"));
    json!({ "name": library.name, "found": library.there, "version": version, "trouble": library.trouble() })
}

fn check(verdict: &Verdict) -> Value {
    let off = verdict.off.is_finite().then_some(verdict.off);
    json!({
        "name": verdict.name, "numbers": verdict.numbers, "right": verdict.right(), "off": off, "bound": verdict.bound,
        "about": verdict.about,
    })
}

/// Devices and libraries for people.
fn list(survey: &Survey) -> String {
    let mut text = format!("cpu     {}\n", ctk_core::device::isa());
    for listed in &survey.devices {
        let ([major, minor], memory) = (listed.capability, listed.memory as f64 / 1e9);
        text.push_str(&format!("cuda:{}  {}, {memory:.0} GB, compute capability {major}.{minor}\n", listed.number, listed.name));
        if let Some(trouble) = listed.trouble() {
            text.push_str(&format!("        cannot be used: {trouble}\n"));
        }
    }
    if !survey.built {
        text.push_str("This ctk was built without CUDA.\n");
        return text;
    }
    text.push_str("\nLibraries of CUDA devices:\n");
    for library in &survey.libraries {
        let state = match (library.trouble(), library.version, library.there) {
            (Some(trouble), ..) => trouble.strip_prefix(&format!("{} ", library.name)).unwrap_or(&trouble).to_string(),
            (None, Some([major, minor]), _) => format!("{major}.{minor}"),
            (None, None, _) => "found, of unknown version".to_string(),
        };
        text.push_str(&format!("{:7} {state}\n", library.name));
    }
    if let Some(failure) = &survey.failure {
        text.push_str(&format!("\nThe driver lists no devices: {failure}\n"));
    }
    text.push_str(&match survey.usable() {
        Some(number) => {
            format!("\n--device auto computes on cuda:{number}. Compare it with the CPU first: ctk devices --self-test\n")
        }
        None => "\nNo CUDA device can be used: --device auto computes on the CPU.\n".to_string(),
    });
    text
}

/// The verdicts about the device, and its name. Each is printed as soon as it is known.
fn compare(args: &Devices) -> Result<(String, Vec<Verdict>)> {
    let (device, note) = Device::open(&args.device).map_err(|e| e.at(format!("--device {}", args.device)))?;
    if !args.show.quiet {
        note.iter().for_each(|note| output::note(note));
        output::say(format!("comparing {device} with the CPU"));
    }
    let mut verdicts = Vec::new();
    // The emulated device of tests is too slow for real networks.
    let sizes = if args.device.starts_with("emulated") { Sizes::Small } else { Sizes::All };
    for check in self_test::checks(sizes) {
        let verdict = check.verdict(&device);
        if !args.show.json {
            output::line(line(&verdict))?;
        }
        verdicts.push(verdict);
    }
    Ok((device.to_string(), verdicts))
}

fn line(verdict: &Verdict) -> String {
    let Verdict { name, numbers, off, bound, about } = verdict;
    match (verdict.right(), off.is_finite()) {
        (true, _) => format!("right  {name}, {numbers}: off by {off:.1e}, at most {bound:.1e}"),
        (false, true) => format!("WRONG  {name}, {numbers}: {about} is off by {off:.1e}, at most {bound:.1e}"),
        (false, false) => format!("WRONG  {name}, {numbers}: {about}"),
    }
}

fn passed(name: &str, verdicts: &[Verdict], json: bool) -> Result<()> {
    let wrong = verdicts.iter().filter(|verdict| !verdict.right()).count();
    if wrong > 0 {
        let what = format!("{name} is wrong in {wrong} of {} comparisons with the CPU", verdicts.len());
        return Err(Error::new(what).hint("do not train on it; --device cpu trains on the CPU"));
    }
    if json { Ok(()) } else { output::line(format!("{name} is right in all {} comparisons with the CPU", verdicts.len())) }
}
