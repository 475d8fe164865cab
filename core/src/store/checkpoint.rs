//! Checkpoints, the only files with weights: a checkpoint folder appears whole or not at all.
//!
//! `checkpoints/<step>/` holds safetensors files, small files beside them, and `manifest.json`, which is written last and has the blake3
//! digest of each file and of itself. The folder is written as `.tmp-<step>`, fsynced, and renamed. A number that is not finite is an
//! error: no checkpoint holds one.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Component, Path, PathBuf};

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::opened;
use crate::recipe::Recipe;
use crate::store::best::Best;
use crate::store::sums::Sums;
use crate::store::{files, finite};

/// Format 2 also records the version of ctk, the data, and the digest of the metrics so far.
const FORMAT: u32 = 2;
const MANIFEST: &str = "manifest.json";

/// The manifest of a checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the format.
    pub format: u32,
    /// The modality that can open it.
    pub modality: String,
    /// Steps done when it was written.
    pub step: usize,
    /// Length of metrics.jsonl at this step; a resume cuts off the rest.
    pub metrics_bytes: u64,
    /// blake3 of this part of metrics.jsonl.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
    /// A digest of the training data; none for data without one, such as standard input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The version of ctk that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The recipe of the run.
    pub recipe: String,
    /// Each file's length and blake3.
    pub files: BTreeMap<String, Digest>,
    /// blake3 of this manifest with this field empty.
    pub checksum: String,
}

/// Length and digest of a file as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    bytes: u64,
    blake3: String,
}

impl Manifest {
    fn seal(&self) -> Result<String> {
        let blank = Manifest { checksum: String::new(), ..self.clone() };
        Ok(blake3::hash(&serde_json::to_vec(&blank)?).to_hex().to_string())
    }
}

/// Writes the files of a checkpoint that is being made.
pub struct Writer {
    folder: PathBuf,
    files: BTreeMap<String, Digest>,
}

impl Writer {
    /// Writes a safetensors file of named tensors, whose names must differ.
    ///
    /// # Errors
    /// A number that is not finite, or a file that cannot be written.
    pub fn tensors(&mut self, file: &str, tensors: &[(String, Tensor)]) -> Result<()> {
        self.views(file, tensors.iter().map(|(name, tensor)| (name.clone(), tensor)).collect())
    }

    /// Writes a safetensors file of anything that can show its bytes; each is copied at most once, when it is written.
    ///
    /// # Errors
    /// A number that is not finite, or a file that cannot be written.
    pub fn views<V: safetensors::View>(&mut self, file: &str, views: Vec<(String, V)>) -> Result<()> {
        let path = self.folder.join(file);
        // At most one key: the metadata is a HashMap, and equal checkpoints must have equal bytes.
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        let bad = Cell::new(None);
        let watched = views.into_iter().enumerate().map(|(number, (name, view))| (name, Watched { view, number, bad: &bad }));
        let watched: Vec<_> = watched.collect();
        let names: Vec<String> = watched.iter().map(|(name, _)| name.clone()).collect();
        safetensors::serialize_to_file(watched, Some(metadata), &path).at(path.display())?;
        if let Some(number) = bad.get() {
            return Err(not_finite(&names[number], &path));
        }
        self.record(file)
    }

    /// Writes a small file as it is.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn bytes(&mut self, file: &str, bytes: &[u8]) -> Result<()> {
        let path = self.folder.join(file);
        fs::write(&path, bytes).at(path.display())?;
        self.record(file)
    }

    fn record(&mut self, file: &str) -> Result<()> {
        let path = self.folder.join(file);
        fs::File::open(&path).and_then(|f| f.sync_all()).at(path.display())?;
        let before = self.files.insert(file.to_string(), digest(&path)?);
        assert!(before.is_none(), "checkpoint file {file} written twice");
        Ok(())
    }
}

/// A view whose numbers are checked as they are written.
struct Watched<'a, V> {
    view: V,
    number: usize,
    /// The first view with a number that is not finite.
    bad: &'a Cell<Option<usize>>,
}

impl<V: safetensors::View> safetensors::View for Watched<'_, V> {
    fn dtype(&self) -> safetensors::Dtype {
        self.view.dtype()
    }

    fn shape(&self) -> &[usize] {
        self.view.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let bytes = self.view.data();
        if self.bad.get().is_none() && !finite::finite(self.view.dtype(), &bytes) {
            self.bad.set(Some(self.number));
        }
        bytes
    }

    fn data_len(&self) -> usize {
        self.view.data_len()
    }
}

fn not_finite(tensor: &str, path: &Path) -> Error {
    Error::diverged(format!("`{tensor}` holds numbers that are not finite, so this is not a checkpoint")).at(path.display()).hint(
        "where training diverged: lower optimizer.*.rate, or lengthen schedule.warmup; of weights from elsewhere: get them again",
    )
}

/// Reads the files of a checkpoint, each checked against the manifest.
pub struct Reader<'a>(&'a Checkpoint);

impl Reader<'_> {
    /// The named tensors of a safetensors file, on the CPU.
    ///
    /// # Errors
    /// The file is missing, or differs from the manifest.
    pub fn tensors(&self, file: &str) -> Result<HashMap<String, Tensor>> {
        candle_core::safetensors::load(self.0.checked(file)?, &Device::Cpu).at(self.0.folder.join(file).display())
    }

    /// The content of a small file.
    ///
    /// # Errors
    /// The file is missing, or differs from the manifest.
    pub fn bytes(&self, file: &str) -> Result<Vec<u8>> {
        let path = self.0.checked(file)?;
        fs::read(&path).at(path.display())
    }

    /// Whether the checkpoint has this file.
    pub fn has(&self, file: &str) -> bool {
        self.0.manifest.files.contains_key(file)
    }
}

/// A whole checkpoint on disk.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    manifest: Manifest,
}

impl Checkpoint {
    /// Writes checkpoint `manifest.step` below `parent`; one that exists already and is whole counts as written.
    ///
    /// # Errors
    /// The errors of `fill`, or a file that cannot be written.
    pub fn write(parent: &Path, mut manifest: Manifest, fill: impl FnOnce(&mut Writer) -> Result<()>) -> Result<Checkpoint> {
        let folder = parent.join(manifest.step.to_string());
        if let Ok(there) = Checkpoint::at(&folder)
            && there.verify().is_ok()
        {
            return Ok(there);
        }
        let temporary = parent.join(format!(".tmp-{}", manifest.step));
        let made = (|| {
            fs::create_dir_all(parent).at(parent.display())?;
            let _ = fs::remove_dir_all(&temporary);
            fs::create_dir(&temporary).at(temporary.display())?;
            let mut writer = Writer { folder: temporary.clone(), files: BTreeMap::new() };
            fill(&mut writer)?;
            manifest.files = writer.files;
            manifest.checksum = manifest.seal()?;
            files::write(&temporary.join(MANIFEST), &serde_json::to_vec_pretty(&manifest)?)?;
            // The library that writes weights makes them readable for their owner only; they get the manifest's permissions.
            let readers = fs::metadata(temporary.join(MANIFEST)).at(temporary.display())?.permissions();
            manifest.files.keys().try_for_each(|file| fs::set_permissions(temporary.join(file), readers.clone()))?;
            files::sync_folder(&temporary)?;
            if folder.exists() {
                fs::remove_dir_all(&folder).at(folder.display())?;
            }
            fs::rename(&temporary, &folder).at(folder.display())?;
            files::sync_folder(parent)
        })();
        if let Err(e) = made {
            let _ = fs::remove_dir_all(&temporary);
            return Err(e.at(format!("writing checkpoint {}", folder.display())));
        }
        Ok(Checkpoint { folder, manifest })
    }

    /// Whether `path` is a run or a checkpoint by what lies in it; whether it can be opened, [`open`](Checkpoint::open) tells.
    pub fn is_at(path: &Path) -> bool {
        path.join("checkpoints").exists() || path.join(MANIFEST).is_file()
    }

    /// Opens the checkpoint at `path`: a checkpoint folder, `checkpoints/best`, or a run folder, which stands for its newest checkpoint.
    ///
    /// # Errors
    /// There is none, or the newest one is damaged: an older one is used only if it is named.
    pub fn open(path: &Path) -> Result<Checkpoint> {
        if path.join(MANIFEST).is_file() {
            return Checkpoint::at(path);
        }
        opened::check(path)?;
        if let Some(best) = Best::meant(path)? {
            return Checkpoint::at(&best);
        }
        if !path.is_dir() {
            return Err(Error::usage("there is no run or checkpoint here")
                .at(path.display())
                .hint("give the folder that `ctk train` printed as `run`"));
        }
        let parent = path.join("checkpoints");
        let Some(step) = Checkpoint::steps(&parent)?.pop() else {
            return Err(Error::usage("this folder holds no checkpoint")
                .at(path.display())
                .hint("give the folder that `ctk train` printed as `run`; a run has a checkpoint once it saved one"));
        };
        let newest = parent.join(step.to_string());
        Checkpoint::at(&newest).and_then(|newest| newest.verify().map(|()| newest)).map_err(|e| {
            let older = Checkpoint::latest(&parent).ok().and_then(|(older, _)| older);
            let hint = match older {
                Some(older) => format!(
                    "an older one is whole: give {} to use it, or train on from it by --resume {}",
                    older.folder.display(),
                    path.display()
                ),
                None => "no older one is whole: restore the file, or train again".to_string(),
            };
            Error::new(format!("the newest checkpoint of this run, of step {step}, is damaged: {}", e.what()))
                .at(damaged_file(&e).unwrap_or_else(|| newest.display().to_string()))
                .hint(hint)
        })
    }

    /// The newest whole checkpoint below `parent`, and a message for each newer one that is skipped because it is damaged or holds numbers
    /// that are not finite.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn latest(parent: &Path) -> Result<(Option<Checkpoint>, Vec<String>)> {
        let mut steps = Checkpoint::steps(parent)?;
        let mut passed = Vec::new();
        while let Some(step) = steps.pop() {
            let folder = parent.join(step.to_string());
            match Checkpoint::at(&folder).and_then(|found| found.verify().and_then(|()| found.verify_numbers()).map(|()| found)) {
                Ok(found) => return Ok((Some(found), passed)),
                Err(e) => {
                    let at = damaged_file(&e).unwrap_or_else(|| folder.display().to_string());
                    passed.push(format!("the checkpoint of step {step} is passed over: {} ({at})", e.what()));
                }
            }
        }
        Ok((None, passed))
    }

    /// Deletes the remains of an interrupted write below `parent`, and all checkpoints but the newest `keep` and that of step `spared`.
    pub(crate) fn sweep(parent: &Path, keep: usize, spared: Option<usize>) -> Result<()> {
        let mut steps = Checkpoint::steps(parent)?;
        steps.truncate(steps.len().saturating_sub(keep));
        steps.retain(|step| Some(*step) != spared);
        let mut old: Vec<PathBuf> = steps.iter().map(|s| parent.join(s.to_string())).collect();
        if parent.is_dir() {
            let entries = fs::read_dir(parent).at(parent.display())?.filter_map(|e| Some(e.ok()?.path()));
            old.extend(entries.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(".tmp-"))));
        }
        old.iter().try_for_each(|folder| fs::remove_dir_all(folder).at(folder.display()))
    }

    /// The steps below `parent` that have a folder, ascending.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn steps(parent: &Path) -> Result<Vec<usize>> {
        if !parent.is_dir() {
            return Ok(Vec::new());
        }
        let mut steps: Vec<usize> =
            fs::read_dir(parent).at(parent.display())?.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// The checkpoint's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The checkpoint's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The recipe of the run.
    pub fn recipe(&self) -> Recipe {
        Recipe::new(self.folder.join(MANIFEST).display().to_string(), self.manifest.recipe.clone())
    }

    /// A reader of its files.
    pub fn reader(&self) -> Reader<'_> {
        Reader(self)
    }

    /// The small file `name` of the run that this checkpoint belongs to: none if the file does not exist, or if the checkpoint lies outside
    /// a run.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn of_run(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.folder.ancestors().nth(2).map_or(Ok(None), |run| Sums::read(run, name))
    }

    /// Checks every file against the manifest.
    ///
    /// # Errors
    /// A file is missing, or differs from the manifest.
    pub fn verify(&self) -> Result<()> {
        self.manifest.files.keys().try_for_each(|file| self.checked(file).map(|_| ()))
    }

    /// Checks that every number of its tensors is finite. From format 2 on that is checked when they are written.
    fn verify_numbers(&self) -> Result<()> {
        if self.manifest.format > 1 {
            return Ok(());
        }
        for file in self.manifest.files.keys().filter(|file| file.ends_with(".safetensors")) {
            let path = self.folder.join(file);
            if let Some(tensor) = finite::first_bad(&path).at(path.display())? {
                return Err(not_finite(&tensor, &path));
            }
        }
        Ok(())
    }

    fn at(folder: &Path) -> Result<Checkpoint> {
        let path = folder.join(MANIFEST);
        let bytes = fs::read(&path).at(path.display())?;
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|_| damaged(&path))?;
        if manifest.format > FORMAT {
            return Err(Error::new(format!("checkpoint format {} is newer than this ctk", manifest.format))
                .at(path.display())
                .hint("update ctk"));
        }
        if manifest.checksum != manifest.seal()? {
            return Err(damaged(&path));
        }
        // A manifest may have been tampered with to name files elsewhere; a checkpoint's files are in its folder.
        if let Some(name) = manifest.files.keys().find(|name| !is_plain(name)) {
            return Err(Error::new(format!("this names a file outside the checkpoint, `{}`", crate::error::printable(name)))
                .at(path.display()));
        }
        Ok(Checkpoint { folder: folder.to_path_buf(), manifest })
    }

    fn checked(&self, file: &str) -> Result<PathBuf> {
        let path = self.folder.join(file);
        let expected =
            self.manifest.files.get(file).ok_or_else(|| Error::new("the checkpoint has no such file").at(path.display()))?;
        if digest(&path)? != *expected {
            return Err(damaged(&path));
        }
        Ok(path)
    }
}

impl Manifest {
    /// A manifest that [`Checkpoint::write`] completes.
    pub fn new(modality: &str, step: usize, metrics_bytes: u64, recipe: &Recipe) -> Manifest {
        Manifest {
            format: FORMAT,
            modality: modality.to_string(),
            step,
            metrics_bytes,
            metrics: None,
            data: None,
            version: Some(env!("CARGO_PKG_VERSION").to_string()),
            recipe: recipe.text().to_string(),
            files: BTreeMap::new(),
            checksum: String::new(),
        }
    }
}

/// Whether `name` is a file name without a path.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
}

pub(super) fn damaged(path: &Path) -> Error {
    Error::new("this file is not as it was written").at(path.display()).hint("use an earlier checkpoint, or train again")
}

/// The file that an error is about: its innermost place.
fn damaged_file(error: &Error) -> Option<String> {
    error.places().first().cloned()
}

fn digest(path: &Path) -> Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    let mut file = opened::open(path).at(path.display())?;
    let bytes = std::io::copy(&mut file, &mut hasher).at(path.display())?;
    Ok(Digest { bytes, blake3: hasher.finalize().to_hex().to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn save(parent: &Path, step: usize) -> Checkpoint {
        let manifest = Manifest::new("test", step, 0, &Recipe::new("r", "[train]\n"));
        Checkpoint::write(parent, manifest, |w| {
            let weight = Tensor::arange(0f32, 6.0, &Device::Cpu)?.reshape((2, 3))?;
            w.tensors("model.safetensors", &[("weight".to_string(), weight)])?;
            w.bytes("words.txt", b"a b")
        })
        .unwrap()
    }

    #[test]
    fn round_trips_and_is_equal_bytes_for_equal_content() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (save(&folder.path().join("a"), 3), save(&folder.path().join("b"), 3));
        assert_eq!(a.manifest().files, b.manifest().files);
        let back = Checkpoint::open(a.folder()).unwrap();
        assert_eq!(back.reader().tensors("model.safetensors").unwrap()["weight"].to_vec2::<f32>().unwrap()[1], [3.0, 4.0, 5.0]);
        assert_eq!(back.reader().bytes("words.txt").unwrap(), b"a b");
    }

    #[test]
    fn a_manifest_that_names_files_elsewhere_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let saved = save(folder.path(), 1);
        fs::write(folder.path().join("elsewhere"), b"a b").unwrap();
        let names = ["../elsewhere", "./words.txt", "a/b", "/etc/hostname", "..", "", "words.txt/"];
        for name in names {
            let mut manifest = saved.manifest().clone();
            let digest = manifest.files["words.txt"].clone();
            manifest.files.insert(name.to_string(), digest);
            manifest.checksum = manifest.seal().unwrap();
            fs::write(saved.folder().join(MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
            let error = Checkpoint::open(saved.folder()).unwrap_err().to_string();
            assert!(error.contains(&format!("outside the checkpoint, `{name}`")), "{name}: {error}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn weights_are_for_the_same_readers_as_all_else() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let made = save(folder.path(), 1);
        fs::write(folder.path().join("plain"), b"by the umask").unwrap();
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode();
        for file in ["model.safetensors", "words.txt", MANIFEST] {
            assert_eq!(mode(made.folder().join(file)), mode(folder.path().join("plain")), "{file}");
        }
    }

    #[test]
    fn damage_is_noticed_and_the_newest_whole_one_is_found() {
        let folder = tempfile::tempdir().unwrap();
        (1..=3).for_each(|step| drop(save(folder.path(), step)));
        let model = folder.path().join("3/model.safetensors");
        let mut bytes = fs::read(&model).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&model, bytes).unwrap();
        assert!(Checkpoint::open(&folder.path().join("3")).unwrap().verify().is_err());
        let manifest = folder.path().join("2/manifest.json");
        fs::write(&manifest, fs::read_to_string(&manifest).unwrap().replace("\"step\": 2", "\"step\": 7")).unwrap();
        let (newest, passed) = Checkpoint::latest(folder.path()).unwrap();
        assert_eq!((newest.unwrap().manifest().step, passed.len()), (1, 2));
        assert!(passed[0].contains("step 3 is passed over: this file is not as it was written"), "{passed:?}");
        assert!(passed[0].contains("3/model.safetensors") && passed[1].contains("2/manifest.json"), "{passed:?}");
    }

    #[test]
    fn a_damaged_newest_one_is_refused_by_name_and_the_older_one_is_told() {
        let run = tempfile::tempdir().unwrap();
        let parent = run.path().join("checkpoints");
        (1..=2).for_each(|step| drop(save(&parent, step)));
        assert_eq!(Checkpoint::open(run.path()).unwrap().manifest().step, 2);
        fs::remove_file(parent.join("2/words.txt")).unwrap();
        let error = Checkpoint::open(run.path()).unwrap_err().to_string();
        assert!(error.contains("the newest checkpoint of this run, of step 2, is damaged"), "{error}");
        assert!(
            error.contains("2/words.txt") && error.contains("an older one is whole: give ") && error.contains("checkpoints/1"),
            "{error}"
        );
        assert_eq!(Checkpoint::open(&parent.join("1")).unwrap().manifest().step, 1, "an older one is used where it is named");
        fs::remove_file(parent.join("1/manifest.json")).unwrap();
        let error = Checkpoint::open(run.path()).unwrap_err().to_string();
        assert!(error.contains("no older one is whole"), "{error}");
    }

    #[test]
    fn an_older_format_with_numbers_that_are_not_finite_is_passed_over() {
        let parent = tempfile::tempdir().unwrap();
        save(parent.path(), 1);
        let folder = parent.path().join("2");
        fs::create_dir(&folder).unwrap();
        let weights = [("w", Tensor::new(&[1f32, f32::NAN], &Device::Cpu).unwrap())];
        safetensors::serialize_to_file(weights, None, &folder.join("model.safetensors")).unwrap();
        let mut manifest = Manifest { format: 1, version: None, ..Manifest::new("test", 2, 0, &Recipe::new("r", "")) };
        manifest.files.insert("model.safetensors".to_string(), digest(&folder.join("model.safetensors")).unwrap());
        manifest.checksum = manifest.seal().unwrap();
        fs::write(folder.join(MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
        let (newest, passed) = Checkpoint::latest(parent.path()).unwrap();
        assert_eq!(newest.unwrap().manifest().step, 1);
        assert!(passed[0].contains("step 2 is passed over") && passed[0].contains("`w` holds numbers"), "{passed:?}");
    }

    #[test]
    fn numbers_that_are_not_finite_are_no_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let write = |values: &[f32], dtype: candle_core::DType| {
            let values = Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let fine = Tensor::ones(3, candle_core::DType::F32, &Device::Cpu).unwrap();
            let manifest = Manifest::new("test", 4, 0, &Recipe::new("r", ""));
            Checkpoint::write(folder.path(), manifest, |w| {
                w.tensors("model.safetensors", &[("a".to_string(), fine), ("b".to_string(), values)])
            })
        };
        use candle_core::DType;
        for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let error = write(&[1.0, 2.0, bad, 0.0, 5.0], dtype).unwrap_err();
                assert_eq!(error.kind(), crate::error::ErrorKind::Diverged);
                assert!(error.to_string().contains("`b` holds numbers that are not finite"), "{error}");
                assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
            }
        }
        assert!(write(&[f32::MAX, f32::MIN, f32::MIN_POSITIVE, -0.0], DType::F32).is_ok());
    }

    #[test]
    fn a_failed_write_leaves_nothing_and_sweeping_keeps_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = Manifest::new("test", 1, 0, &Recipe::new("r", ""));
        assert!(Checkpoint::write(folder.path(), manifest, |_| Err(Error::new("no room"))).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        (1..=3).for_each(|step| drop(save(folder.path(), step)));
        fs::create_dir(folder.path().join(".tmp-9")).unwrap();
        Checkpoint::sweep(folder.path(), 2, None).unwrap();
        assert_eq!(Checkpoint::steps(folder.path()).unwrap(), [2, 3]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        (4..=6).for_each(|step| drop(save(folder.path(), step)));
        Checkpoint::sweep(folder.path(), 2, Some(3)).unwrap();
        assert_eq!(Checkpoint::steps(folder.path()).unwrap(), [3, 5, 6], "one is spared");
    }
}
