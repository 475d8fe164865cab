//! A run's folder: the only place a training run writes to, and locked while it trains.
//!
//! ```text
//! runs/<name>/recipe.toml            the recipe with all defaults written out
//!             splits.json            the hold-out, if the data has no test part of its own
//!             labels.json            the samples that keep their labels, in a task with few labels
//!             classes.json           the names of a distilled run's classes, by number
//!             search.json            the candidates tried by cross-validation, and their results
//!             folds.safetensors      logits of the cross-validation's networks for their held-out images
//!             held_back.json         the samples whose labels decide about the best checkpoint and are not trained on
//!             sums.json              digests of the files above, checked when these are read
//!             metrics.jsonl          one object for each logged step; a resume cuts what comes after the checkpoint
//!             evals.jsonl            the results of `ctk eval`, one object each
//!             teacher.rows           a teacher's rows of the texts, in a distillation: see `rows`
//!             lock                   held by the process that trains in the folder
//!             checkpoints/<step>/    see `checkpoint`
//!             checkpoints/best/      which checkpoint is the best, if that is measured: see `best`
//! ```
//!
//! The folder is made when something is first written to it, so that a mistake found before training leaves no trace. Of several ranks only
//! one writes: see [`Process::writes`](crate::process::Process::writes).

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Context, Error, Result};
use crate::opened;
use crate::recipe::Recipe;
use crate::store::best::Best;
use crate::store::checkpoint::{Checkpoint, Manifest, Writer};
use crate::store::sums::{self, Sums};
use crate::store::{best, changes, files};

const RECIPE: &str = "recipe.toml";
const METRICS: &str = "metrics.jsonl";
const LOCK: &str = "lock";

/// Where a run's folder is.
#[derive(Clone, Debug)]
pub enum Place {
    /// A new folder of this name, which must not hold anything yet.
    New(PathBuf),
    /// A new numbered folder below `runs/`.
    Numbered,
    /// An existing run, resumed from its newest whole checkpoint.
    Resume(PathBuf),
}

impl Place {
    /// The run in `folder` if one has begun there, else a new one. The remains of a run that ended before its recipe was written are
    /// removed.
    ///
    /// # Errors
    /// The remains cannot be removed.
    pub fn reached(folder: PathBuf) -> Result<Place> {
        if Run::has_begun(&folder) {
            return Ok(Place::Resume(folder));
        }
        if only_begun(&folder) {
            fs::remove_dir_all(&folder).at(folder.display())?;
        }
        Ok(Place::New(folder))
    }
}

/// Whether a folder exists and is empty, or holds only what a run leaves that ended before its recipe was written.
fn only_begun(folder: &Path) -> bool {
    let begun = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        name == LOCK
            || name == sums::FILE
            || name == METRICS && entry.metadata().is_ok_and(|m| m.len() == 0)
            || name.to_string_lossy().starts_with(".tmp-")
    };
    fs::read_dir(folder).is_ok_and(|entries| entries.flatten().all(|entry| begun(&entry)))
}

/// A run: its folder, its modality and its recipe.
pub struct Run {
    place: Place,
    modality: &'static str,
    recipe: Recipe,
    /// A digest of the training data.
    data: Option<String>,
    /// Whether it may be resumed although data or recipe differ from those of its checkpoint.
    accepting: bool,
    open: Option<Open>,
}

/// Where a run is resumed from, with notes to print.
#[derive(Debug, Default)]
pub struct Origin {
    /// Its newest whole checkpoint; none if the run starts from the beginning.
    pub checkpoint: Option<Checkpoint>,
    /// Checkpoints that were skipped, and what has changed since.
    pub notes: Vec<String>,
}

struct Open {
    folder: PathBuf,
    metrics: File,
    /// Digest of the metrics so far.
    hasher: blake3::Hasher,
    sums: Sums,
    made: bool,
    _lock: File,
}

impl Run {
    /// A run that has not written anything yet.
    ///
    /// # Errors
    /// A new folder that is not empty.
    pub fn new(place: Place, modality: &'static str, recipe: Recipe) -> Result<Run> {
        if let Place::New(folder) = &place {
            free(folder)?;
        }
        Ok(Run { place, modality, recipe, data: None, accepting: false, open: None })
    }

    /// The same run, which may be resumed although data or recipe differ from those of its checkpoint; the differences are noted.
    pub fn accepting_changes(self, accepting: bool) -> Run {
        Run { accepting, ..self }
    }

    /// Sets the digest of the training data (names, sizes and a sample of the bytes). Checkpoints store it, and a resumed run compares it.
    pub fn set_data(&mut self, digest: Option<String>) {
        self.data = digest;
    }

    /// The modality's name.
    pub fn modality(&self) -> &'static str {
        self.modality
    }

    /// Whether `folder` holds a run with its recipe.
    pub fn has_begun(folder: &Path) -> bool {
        folder.join(RECIPE).is_file()
    }

    /// The recipe of an existing run.
    ///
    /// # Errors
    /// There is no run, or its recipe cannot be read.
    pub fn recipe_of(folder: &Path) -> Result<Recipe> {
        if !Run::has_begun(folder) {
            return Err(Error::usage("there is no run here")
                .at(folder.display())
                .hint("give the folder that `ctk train` printed as `run`"));
        }
        Recipe::read(&folder.join(RECIPE))
    }

    /// The run's folder, made and locked at the first call.
    ///
    /// # Errors
    /// The folder cannot be made, or another process trains in it.
    pub fn folder(&mut self) -> Result<&Path> {
        self.open().map(|o| o.folder.as_path())
    }

    /// A run with the same recipe in the folder `name` inside this one's; it is resumed if it exists.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn within(&mut self, name: &str) -> Result<Run> {
        let place = Place::reached(self.folder()?.join(name))?;
        Run::new(place, self.modality, self.recipe.clone())
    }

    /// Removes the run's folder.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn discard(mut self) -> Result<()> {
        let folder = self.folder()?.to_path_buf();
        self.open = None;
        fs::remove_dir_all(&folder).at(folder.display())
    }

    /// The folder, if it exists.
    pub(crate) fn existing(&self) -> Option<&Path> {
        self.open.as_ref().map(|o| o.folder.as_path())
    }

    /// A file that the run wrote earlier (such as `splits.json` of a resumed run).
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or has been removed.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Place::Resume(folder) = &self.place else { return Ok(None) };
        Sums::read(folder, name)
    }

    /// Writes a file of the run, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let open = self.open()?;
        open.sums.expect(name, bytes)?;
        files::write(&open.folder.join(name), bytes)?;
        open.sums.settle(name)
    }

    /// Removes a file or folder of the run, if it exists.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&mut self, name: &str) -> Result<()> {
        let open = self.open()?;
        // A stop in between leaves files that are not listed, as before they were written.
        open.sums.forget(name)?;
        files::remove(&open.folder.join(name))
    }

    /// Appends one line to the metrics.
    pub(crate) fn metric(&mut self, line: &Value) -> Result<()> {
        let open = self.open()?;
        open.there()?;
        let mut text = line.to_string();
        text.push('\n');
        open.hasher.update(text.as_bytes());
        open.metrics.write_all(text.as_bytes()).at(open.folder.join(METRICS).display())
    }

    /// The checkpoint that a resumed run continues from, if there is one yet.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn latest(&self) -> Result<Option<Checkpoint>> {
        let Place::Resume(folder) = &self.place else { return Ok(None) };
        Ok(Checkpoint::latest(&folder.join("checkpoints"))?.0)
    }

    /// Finds the checkpoint to resume from, and cuts the metrics after it.
    ///
    /// # Errors
    /// A small file of the run is damaged; or recipe or data differ from the checkpoint's, and changes are not accepted.
    pub fn resume(&mut self) -> Result<Origin> {
        if !matches!(self.place, Place::Resume(_)) {
            return Ok(Origin::default());
        }
        let (recipe, data, accepting) = (self.recipe.clone(), self.data.clone(), self.accepting);
        let open = self.open()?;
        // The recipe may have been edited; its keys are compared instead of its digest.
        let damaged = open.sums.damaged();
        if let Some((name, what)) = damaged.iter().find(|(name, _)| *name != RECIPE) {
            return Err(Error::new(format!("this file of the run {what}"))
                .at(open.folder.join(name).display())
                .hint("bring it back, or begin a new run"));
        }
        let edited = !damaged.is_empty();
        let (from, mut notes) = Checkpoint::latest(&open.folder.join("checkpoints"))?;
        let Some(from) = from else {
            notes.push("this run has no whole checkpoint yet: starting from its beginning".to_string());
            open.cut(0, None, &mut notes)?;
            return Ok(Origin { checkpoint: None, notes });
        };
        let was = from.manifest();
        if edited {
            notes.push(format!("{} was edited since it was written", open.folder.join(RECIPE).display()));
        }
        changes::of_recipe(&was.recipe, recipe.text(), accepting, &mut notes)
            .map_err(|e| e.at(open.folder.join(RECIPE).display()))?;
        changes::of_data(was.data.as_deref(), data.as_deref(), accepting, &mut notes)?;
        changes::of_version(was.version.as_deref(), &mut notes);
        open.cut(was.metrics_bytes, was.metrics.as_deref(), &mut notes)?;
        Ok(Origin { checkpoint: Some(from), notes })
    }

    /// Saves checkpoint `step` and deletes all but the newest `keep`.
    ///
    /// # Errors
    /// The errors of `fill`, or a file that cannot be written.
    pub fn save(&mut self, step: usize, keep: usize, fill: impl FnOnce(&mut Writer) -> Result<()>) -> Result<Checkpoint> {
        self.save_beside(None, step, keep, fill)
    }

    /// The same, but the best checkpoint, which may be this one, is kept too; the checkpoint and the run record which it is.
    ///
    /// # Errors
    /// As [`save`](Run::save).
    pub fn save_beside(
        &mut self,
        best: Option<&Best>,
        step: usize,
        keep: usize,
        fill: impl FnOnce(&mut Writer) -> Result<()>,
    ) -> Result<Checkpoint> {
        let (modality, recipe, data) = (self.modality, self.recipe.clone(), self.data.clone());
        let open = self.open()?;
        open.there()?;
        open.metrics.sync_data()?;
        let metrics = Some(open.hasher.finalize().to_hex().to_string());
        let manifest = Manifest { metrics, data, ..Manifest::new(modality, step, open.metrics.metadata()?.len(), &recipe) };
        let parent = open.folder.join("checkpoints");
        let saved = Checkpoint::write(&parent, manifest, |writer| {
            fill(writer)?;
            best.map_or(Ok(()), |best| writer.bytes(best::FILE, &best.bytes()?))
        });
        // The folder may have gone meanwhile, which is then the reason.
        let saved = saved.or_else(|e| open.there().and(Err(e)))?;
        best.map_or(Ok(()), |best| best.name(&parent))?;
        Checkpoint::sweep(&parent, keep, best.map(|best| best.step))?;
        Ok(saved)
    }

    /// Makes `checkpoints/best` stand for `best`, which a stop between two writes may have left undone.
    pub(crate) fn name_best(&mut self, best: &Best) -> Result<()> {
        best.name(&self.folder()?.join("checkpoints"))
    }

    /// After a failure: removes the folder again, if this run made it and saved no checkpoint.
    pub fn abandon(&mut self) {
        if let Some(open) = self.open.take()
            && open.made
            && Checkpoint::steps(&open.folder.join("checkpoints")).is_ok_and(|steps| steps.is_empty())
        {
            let _ = fs::remove_dir_all(&open.folder);
        }
    }

    fn open(&mut self) -> Result<&mut Open> {
        if self.open.is_none() {
            self.open = Some(self.make()?);
        }
        Ok(self.open.as_mut().expect("opened above"))
    }

    fn make(&self) -> Result<Open> {
        let (folder, made) = match &self.place {
            Place::New(folder) => {
                let made = !folder.exists();
                fs::create_dir_all(folder).at(folder.display()).hint("choose another place with --out")?;
                (folder.clone(), made)
            }
            Place::Numbered => (numbered(Path::new("runs"), self.modality)?, true),
            Place::Resume(folder) => (folder.clone(), false),
        };
        // A pipe of this name would block the program.
        [LOCK, METRICS].iter().try_for_each(|name| opened::check(&folder.join(name)))?;
        let lock = File::create(folder.join(LOCK)).at(folder.display())?;
        lock.try_lock().map_err(|_| {
            Error::new("another ctk is training in this folder")
                .at(folder.display())
                .hint("wait for it, or train elsewhere with --out")
        })?;
        let resumed = matches!(self.place, Place::Resume(_));
        match resumed {
            true => Checkpoint::sweep(&folder.join("checkpoints"), usize::MAX, None)?,
            // Another process may have trained here since this run read the folder.
            false => {
                free(&folder)?;
                swept(&folder)?;
            }
        }
        let mut sums = Sums::of(&folder)?;
        if !resumed || Run::recipe_of(&folder)?.text() != self.recipe.text() {
            sums.expect(RECIPE, self.recipe.text().as_bytes())?;
            files::write(&folder.join(RECIPE), self.recipe.text().as_bytes())?;
            sums.settle(RECIPE)?;
        }
        let path = folder.join(METRICS);
        let metrics = OpenOptions::new().create(true).append(true).open(&path).at(path.display())?;
        Ok(Open { folder, metrics, hasher: blake3::Hasher::new(), sums, made, _lock: lock })
    }
}

impl Open {
    /// Checks that the folder still exists.
    ///
    /// # Errors
    /// It does not.
    fn there(&self) -> Result<()> {
        match self.folder.join(LOCK).is_file() {
            true => Ok(()),
            false => Err(Error::new("the run's folder was removed during training, so nothing more can be saved")
                .at(self.folder.display())
                .hint("train again, and leave the folder in place meanwhile")),
        }
    }

    /// Cuts the metrics to the first `length` bytes, whose digest should be `digest`.
    fn cut(&mut self, length: u64, digest: Option<&str>, notes: &mut Vec<String>) -> Result<()> {
        let path = self.folder.join(METRICS);
        let there = self.metrics.metadata()?.len();
        self.metrics.set_len(length.min(there)).at(path.display())?;
        self.hasher = blake3::Hasher::new();
        let read = File::open(&path).and_then(|mut file| std::io::copy(&mut file, &mut self.hasher));
        read.at(path.display())?;
        let found = self.hasher.finalize().to_hex();
        if there < length || digest.is_some_and(|digest| digest != found.as_str()) {
            notes.push(format!(
                "{} is not as this run wrote it: its lines cannot be relied on. Training does not read them, and goes on",
                path.display()
            ));
        }
        Ok(())
    }
}

/// Removes what a run left half-written in `folder`.
fn swept(folder: &Path) -> Result<()> {
    let left = fs::read_dir(folder).at(folder.display())?.flatten();
    let mut left = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(".tmp-"));
    left.try_for_each(|entry| files::remove(&entry.path()))
}

/// Checks that `folder` is empty or missing.
///
/// # Errors
/// It holds something.
fn free(folder: &Path) -> Result<()> {
    if !folder.exists() || only_begun(folder) {
        return Ok(());
    }
    Err(Error::usage("this folder is not empty")
        .at(folder.display())
        .hint("give another --out, or go on with the run in it by --resume"))
}

/// Makes `parent/<modality>-<n>` with the smallest free n.
fn numbered(parent: &Path, modality: &str) -> Result<PathBuf> {
    fs::create_dir_all(parent).at(parent.display()).hint("choose another place with --out")?;
    for n in 1.. {
        let folder = parent.join(format!("{modality}-{n}"));
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Error::from(e).at(folder.display()).hint("choose another place with --out")),
        }
    }
    unreachable!("there is always a next number")
}
