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
use crate::recipe::Recipe;
use crate::store::best::Best;
use crate::store::checkpoint::{Checkpoint, Manifest, Writer};
use crate::store::{best, files};

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
        let begun = |entry: &fs::DirEntry| entry.file_name() == LOCK || entry.file_name().to_string_lossy().starts_with(".tmp-");
        let only_begun = fs::read_dir(&folder).is_ok_and(|entries| entries.flatten().all(|entry| begun(&entry)));
        if only_begun {
            fs::remove_dir_all(&folder).at(folder.display())?;
        }
        Ok(Place::New(folder))
    }
}

/// A run: its folder, its modality and its recipe.
pub struct Run {
    place: Place,
    modality: &'static str,
    recipe: Recipe,
    open: Option<Open>,
}

/// Where a run goes on from.
#[derive(Debug)]
pub enum Origin {
    /// Its beginning: it is new.
    New,
    /// Its beginning: it was stopped before it had a whole checkpoint.
    NoCheckpoint,
    /// Its newest whole checkpoint.
    Checkpoint(Checkpoint),
}

struct Open {
    folder: PathBuf,
    metrics: File,
    made: bool,
    _lock: File,
}

impl Run {
    /// A run that has not written anything yet.
    ///
    /// # Errors
    /// A new folder that holds something already.
    pub fn new(place: Place, modality: &'static str, recipe: Recipe) -> Result<Run> {
        if let Place::New(folder) = &place
            && fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
        {
            return Err(Error::usage("this folder is not empty")
                .at(folder.display())
                .hint("give another --out, or go on with the run in it by --resume"));
        }
        Ok(Run { place, modality, recipe, open: None })
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
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Place::Resume(folder) = &self.place else { return Ok(None) };
        let path = folder.join(name);
        if path.is_file() { fs::read(&path).map(Some).at(path.display()) } else { Ok(None) }
    }

    /// Writes a file of the run, whole.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.folder()?.join(name);
        files::write(&path, bytes)
    }

    /// Removes a file or folder of the run, if it is there.
    pub fn remove(&mut self, name: &str) -> Result<()> {
        files::remove(&self.folder()?.join(name))
    }

    /// Appends one line to the metrics.
    pub(crate) fn metric(&mut self, line: &Value) -> Result<()> {
        let open = self.open()?;
        let mut text = line.to_string();
        text.push('\n');
        open.metrics.write_all(text.as_bytes()).at(open.folder.join(METRICS).display())
    }

    /// The checkpoint that a resumed run will go on from, if there is one yet.
    pub fn latest(&self) -> Result<Option<Checkpoint>> {
        let Place::Resume(folder) = &self.place else { return Ok(None) };
        Checkpoint::latest(&folder.join("checkpoints"))
    }

    /// Where to go on from. Cuts a resumed run's metrics to what its checkpoint covers.
    pub fn resume(&mut self) -> Result<Origin> {
        if !matches!(self.place, Place::Resume(_)) {
            return Ok(Origin::New);
        }
        let open = self.open()?;
        let from = Checkpoint::latest(&open.folder.join("checkpoints"))?;
        let length = from.as_ref().map_or(0, |c| c.manifest().metrics_bytes);
        let path = open.folder.join(METRICS);
        open.metrics.set_len(length.min(open.metrics.metadata()?.len())).at(path.display())?;
        Ok(from.map_or(Origin::NoCheckpoint, Origin::Checkpoint))
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
        let (modality, recipe) = (self.modality, self.recipe.clone());
        let open = self.open()?;
        open.metrics.sync_data()?;
        let manifest = Manifest::new(modality, step, open.metrics.metadata()?.len(), &recipe);
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
        let lock = File::create(folder.join(LOCK)).at(folder.display())?;
        lock.try_lock().map_err(|_| {
            Error::new("another ctk is training in this folder")
                .at(folder.display())
                .hint("wait for it, or train elsewhere with --out")
        })?;
        let resumed = matches!(self.place, Place::Resume(_));
        if resumed {
            Checkpoint::sweep(&folder.join("checkpoints"), usize::MAX, None)?;
        }
        if !resumed || Run::recipe_of(&folder)?.text() != self.recipe.text() {
            files::write(&folder.join(RECIPE), self.recipe.text().as_bytes())?;
        }
        let path = folder.join(METRICS);
        let metrics = OpenOptions::new().create(true).append(true).open(&path).at(path.display())?;
        Ok(Open { folder, metrics, made, _lock: lock })
    }
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
