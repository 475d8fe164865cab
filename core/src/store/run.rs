//! A run's folder: the only place a training run writes to, locked while it does.
//!
//! ```text
//! runs/<name>/recipe.toml            as resolved and run
//!             splits.json            which samples were held out, where the data has no test part of its own
//!             labels.json            which samples kept their labels, where a task has few
//!             classes.json           what the classes of a distilled run are called, by number
//!             search.json            what was tried on folds of these, and how it did
//!             folds.safetensors      what the choice's networks said of the images held out in these folds
//!             held_back.json         which samples' labels nothing learns from, where they tell the best checkpoint
//!             sums.json              digests of the files above, which are checked when they are read
//!             metrics.jsonl          one object per logged step; a resume cuts what came after the checkpoint
//!             evals.jsonl            what `ctk eval` found of it, one object each
//!             checkpoints/<step>/    see `checkpoint`
//!             checkpoints/best/      which of them is the best, where that was measured: see `best`
//! ```
//!
//! The folder is made when something is first written, so that a mistake found before training leaves no trace. Of many ranks one
//! writes: [`Process::writes`](crate::process::Process::writes) says which.

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

/// Where a run shall live.
#[derive(Clone, Debug)]
pub enum Place {
    /// A new folder of this name, which must not hold anything yet.
    New(PathBuf),
    /// A new numbered folder below `runs/`.
    Numbered,
    /// An existing run, to go on from its newest whole checkpoint.
    Resume(PathBuf),
}

impl Place {
    /// The run in `folder` if one has begun there, else a new one; what ended before its recipe was written is swept away.
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

/// Whether a folder is there and holds nothing but what a run leaves that ended before its recipe was written; also an empty one.
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
    /// A digest of the data that it is trained on.
    data: Option<String>,
    /// Whether it may go on though data or recipe are not those of its checkpoint.
    accepting: bool,
    open: Option<Open>,
}

/// Where a run goes on from, and what there is to say of it.
#[derive(Debug, Default)]
pub struct Origin {
    /// Its newest whole checkpoint; none where it is at its beginning.
    pub checkpoint: Option<Checkpoint>,
    /// What was passed over, and what has changed since.
    pub notes: Vec<String>,
}

struct Open {
    folder: PathBuf,
    metrics: File,
    /// Of the metrics so far.
    hasher: blake3::Hasher,
    sums: Sums,
    made: bool,
    _lock: File,
}

impl Run {
    /// A run that has not written anything yet.
    ///
    /// # Errors
    /// A new folder that holds something already.
    pub fn new(place: Place, modality: &'static str, recipe: Recipe) -> Result<Run> {
        if let Place::New(folder) = &place {
            free(folder)?;
        }
        Ok(Run { place, modality, recipe, data: None, accepting: false, open: None })
    }

    /// The same, which may go on though data or recipe are not those of its checkpoint; what differs is still told.
    pub fn accepting_changes(self, accepting: bool) -> Run {
        Run { accepting, ..self }
    }

    /// Says what data it is trained on, by a digest of names, sizes and a sample of bytes: its checkpoints keep it, and a run that goes
    /// on compares it.
    pub fn set_data(&mut self, digest: Option<String>) {
        self.data = digest;
    }

    /// The name of the modality that trains it.
    pub fn modality(&self) -> &'static str {
        self.modality
    }

    /// Whether there is a run in `folder`, with its recipe.
    pub fn has_begun(folder: &Path) -> bool {
        folder.join(RECIPE).is_file()
    }

    /// The recipe of an existing run.
    pub fn recipe_of(folder: &Path) -> Result<Recipe> {
        if !Run::has_begun(folder) {
            return Err(Error::usage("there is no run here")
                .at(folder.display())
                .hint("give the folder that `ctk train` printed as `run`"));
        }
        Recipe::read(&folder.join(RECIPE))
    }

    /// The run's folder, made and locked at the first call.
    pub fn folder(&mut self) -> Result<&Path> {
        self.open().map(|o| o.folder.as_path())
    }

    /// A run in the folder `name` inside this one's, by the same recipe. One that is there already is gone on with.
    pub fn within(&mut self, name: &str) -> Result<Run> {
        let place = Place::reached(self.folder()?.join(name))?;
        Run::new(place, self.modality, self.recipe.clone())
    }

    /// Removes the run's folder.
    pub fn discard(mut self) -> Result<()> {
        let folder = self.folder()?.to_path_buf();
        self.open = None;
        fs::remove_dir_all(&folder).at(folder.display())
    }

    /// The folder, if it was made already.
    pub(crate) fn existing(&self) -> Option<&Path> {
        self.open.as_ref().map(|o| o.folder.as_path())
    }

    /// A file of the run that was written before (`splits.json` of a resumed run).
    ///
    /// # Errors
    /// A file that cannot be read, is not as it was written, or has gone.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Place::Resume(folder) = &self.place else { return Ok(None) };
        Sums::read(folder, name)
    }

    /// Writes a file of the run, whole.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let open = self.open()?;
        open.sums.expect(name, bytes)?;
        files::write(&open.folder.join(name), bytes)?;
        open.sums.settle(name)
    }

    /// Removes a file or folder of the run, if it is there.
    pub fn remove(&mut self, name: &str) -> Result<()> {
        let open = self.open()?;
        // A stop in between leaves files that are not listed, which is as it was before.
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

    /// The checkpoint that a resumed run will go on from, if there is one yet.
    pub fn latest(&self) -> Result<Option<Checkpoint>> {
        let Place::Resume(folder) = &self.place else { return Ok(None) };
        Ok(Checkpoint::latest(&folder.join("checkpoints"))?.0)
    }

    /// Where to go on from. Cuts a resumed run's metrics to what its checkpoint covers.
    ///
    /// # Errors
    /// A small file of the run that is damaged; a recipe or data that is not the checkpoint's, unless that is accepted.
    pub fn resume(&mut self) -> Result<Origin> {
        if !matches!(self.place, Place::Resume(_)) {
            return Ok(Origin::default());
        }
        let (recipe, data, accepting) = (self.recipe.clone(), self.data.clone(), self.accepting);
        let open = self.open()?;
        // A recipe may be edited; what that means is told by its keys.
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

    /// Saves checkpoint `step` and drops all but the newest `keep`.
    pub fn save(&mut self, step: usize, keep: usize, fill: impl FnOnce(&mut Writer) -> Result<()>) -> Result<Checkpoint> {
        self.save_beside(None, step, keep, fill)
    }

    /// The same, but the best of all stays, which may be this one; the checkpoint and the run say which it is.
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
        })?;
        best.map_or(Ok(()), |best| best.name(&parent))?;
        Checkpoint::sweep(&parent, keep, best.map(|best| best.step))?;
        Ok(saved)
    }

    /// Makes `checkpoints/best` stand for `best`: what a stop between two writes may have left undone.
    pub(crate) fn name_best(&mut self, best: &Best) -> Result<()> {
        best.name(&self.folder()?.join("checkpoints"))
    }

    /// After a failure: removes the folder again if this run made it and saved no checkpoint.
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
        // A pipe in the place of one would be waited for.
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
            // Somebody else may have trained here since this run looked.
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
    /// # Errors
    /// The folder has gone.
    fn there(&self) -> Result<()> {
        match self.folder.join(LOCK).is_file() {
            true => Ok(()),
            false => Err(Error::new("the run's folder has gone while it was trained: nothing more can be saved there")
                .at(self.folder.display())
                .hint("train again, and leave the folder where it is while that lasts")),
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

/// Takes away what a run left half-written in `folder`.
fn swept(folder: &Path) -> Result<()> {
    let left = fs::read_dir(folder).at(folder.display())?.flatten();
    let mut left = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(".tmp-"));
    left.try_for_each(|entry| files::remove(&entry.path()))
}

/// # Errors
/// There is something in `folder`.
fn free(folder: &Path) -> Result<()> {
    if !folder.exists() || only_begun(folder) {
        return Ok(());
    }
    Err(Error::usage("this folder is not empty")
        .at(folder.display())
        .hint("give another --out, or go on with the run in it by --resume"))
}

/// Makes `parent/<modality>-<n>` with the smallest n that is free.
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
