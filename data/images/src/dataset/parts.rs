//! Recognises which folder is which part of the data, by common names.
//!
//! A name is divided into words where its letters end (`seg_train`, `train2017`, `Test-1`) or a new word begins (`TrainImages`); words
//! without meaning here (`set`, `images`) are ignored. `valid` and `dev` are measured on during training, `test` is evaluated on at the
//! end; `eval` takes the role of the two that is missing. The word alone is not enough, because class folders may be called `bullet_train`
//! and `test_tube`: there must be a training part, and nothing beside the parts that looks like a class.

use super::tree::Node;

/// The role of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Train,
    Val,
    Test,
    Unlabelled,
}

/// A role, and whether the name has no other words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Named {
    word: Word,
    pub plain: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Train,
    Val,
    Eval,
    Test,
    Unlabelled,
}

const WORDS: [(&str, Word); 26] = [
    ("train", Word::Train),
    ("training", Word::Train),
    ("trn", Word::Train),
    ("trainval", Word::Train),
    ("val", Word::Val),
    ("valid", Word::Val),
    ("validation", Word::Val),
    ("validate", Word::Val),
    ("vld", Word::Val),
    ("dev", Word::Val),
    ("devel", Word::Val),
    ("development", Word::Val),
    ("eval", Word::Eval),
    ("evaluation", Word::Eval),
    ("test", Word::Test),
    ("testing", Word::Test),
    ("tests", Word::Test),
    ("tst", Word::Test),
    ("holdout", Word::Test),
    ("heldout", Word::Test),
    ("unlabelled", Word::Unlabelled),
    ("unlabeled", Word::Unlabelled),
    ("unlabel", Word::Unlabelled),
    ("unsup", Word::Unlabelled),
    ("unsupervised", Word::Unlabelled),
    ("nolabels", Word::Unlabelled),
];

/// Words without meaning that may stand beside a part's name.
const PLAIN: [&str; 14] = [
    "dataset", "set", "sets", "data", "images", "image", "imgs", "img", "photos", "pictures", "pics", "split", "part", "samples",
];

/// The role that `name` stands for.
pub(super) fn named(name: &str) -> Option<Named> {
    let mut words = Vec::new();
    let mut plain = true;
    for token in tokens(name) {
        let bare = PLAIN.iter().find_map(|end| token.strip_suffix(end)).filter(|bare| !bare.is_empty());
        let known = |token: &str| WORDS.iter().find(|(word, _)| *word == token).map(|(_, word)| *word);
        match known(&token).or_else(|| bare.and_then(known)) {
            Some(word) if !words.contains(&word) => words.push(word),
            Some(_) => {}
            None => plain &= PLAIN.contains(&token.as_str()),
        }
    }
    match words[..] {
        [word] => Some(Named { word, plain }),
        // Both are trained on in the end.
        [Word::Train, Word::Val] | [Word::Val, Word::Train] => Some(Named { word: Word::Train, plain }),
        _ => None,
    }
}

/// Whether `name`, on its own, stands for a part that is held back from training.
pub(super) fn is_held_back(name: &str) -> bool {
    named(name).is_some_and(|of| of.plain && matches!(of.word, Word::Val | Word::Eval | Word::Test))
}

/// Whether `name` says nothing of its content (`images`, `photos`, `data`).
pub(super) fn is_plain(name: &str) -> bool {
    let tokens = tokens(name);
    !tokens.is_empty() && tokens.iter().all(|token| PLAIN.contains(&token.as_str()))
}

/// The words of a name in lower case; single letters are ignored.
fn tokens(name: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut before = ' ';
    for c in name.chars() {
        if !c.is_alphabetic() || (before.is_lowercase() && c.is_uppercase()) {
            all.push(String::new());
        }
        if c.is_alphabetic() {
            all.last_mut().expect("one to begin with").extend(c.to_lowercase());
        }
        before = c;
    }
    all.retain(|token| token.chars().count() > 1);
    all
}

/// The role of each of `names`, which are in one folder, by the names alone; `eval` is the role that the others leave.
pub(super) fn roles(names: &[&str]) -> Vec<Option<Role>> {
    let words: Vec<Option<Word>> = names.iter().map(|name| named(name).map(|of| of.word)).collect();
    let has = |word: Word| words.contains(&Some(word));
    let eval = if has(Word::Val) && !has(Word::Test) { Role::Test } else { Role::Val };
    let role = |word: Word| match word {
        Word::Train => Role::Train,
        Word::Val => Role::Val,
        Word::Eval => eval,
        Word::Test => Role::Test,
        Word::Unlabelled => Role::Unlabelled,
    };
    words.into_iter().map(|word| word.map(role)).collect()
}

/// The role of each folder of `root` that holds images, if they are parts and not classes.
pub(super) fn of(root: &Node) -> Option<Vec<Option<Role>>> {
    let folders: Vec<&Node> = root.filled().collect();
    let names: Vec<&str> = folders.iter().map(|folder| folder.name()).collect();
    let roles = roles(&names);
    let plain: Vec<bool> = names.iter().map(|name| named(name).is_some_and(|of| of.plain)).collect();
    let any = |wanted: &[Role], must_be_plain: bool| {
        roles.iter().zip(&plain).any(|(role, plain)| role.is_some_and(|r| wanted.contains(&r)) && (*plain || !must_be_plain))
    };
    let held = [Role::Val, Role::Test];
    let alone = roles.iter().all(Option::is_some);
    let nested = roles.iter().zip(&folders).any(|(role, folder)| *role == Some(Role::Train) && folder.filled().count() > 0);
    let parts = match any(&held, false) {
        true => any(&[Role::Train], false) && (alone || nested || (any(&[Role::Train], true) && any(&held, true))),
        false => any(&[Role::Train], true) && (alone || nested),
    };
    parts.then_some(roles)
}

#[cfg(test)]
mod tests {
    use super::super::Stored;
    use super::super::tree::Leaf;
    use super::*;

    fn role(name: &str) -> Option<Role> {
        roles(&[name])[0]
    }

    #[test]
    fn names_of_every_kind() {
        for name in [
            "train",
            "Train",
            "TRAINING",
            "seg_train",
            "train2017",
            "train_images",
            "TrainSet",
            "trainset",
            "trn",
            "train.X1",
            "training-data",
            "trainval",
            "train_val",
            "Train Images",
            "2_train",
        ] {
            assert_eq!(role(name), Some(Role::Train), "{name}");
        }
        for name in
            ["val", "Valid", "validation", "Validation_Set", "dev", "val2017", "ValImages", "eval", "Evaluation", "seg-val"]
        {
            assert_eq!(role(name), Some(Role::Val), "{name}");
        }
        for name in ["test", "Testing", "Test-1", "seg_test", "TestData", "tests", "holdout", "my test images"] {
            assert_eq!(role(name), Some(Role::Test), "{name}");
        }
        for name in [
            "trainer",
            "valley",
            "testimonials",
            "contest",
            "cat",
            "device",
            "evaluate_me",
            "train_test_split",
            "t",
            "Valentin",
            "latest",
            "strainer",
        ] {
            assert_eq!(role(name), None, "{name}");
        }
        assert_eq!(roles(&["train", "val", "eval"])[2], Some(Role::Test), "of val and eval, eval is judged on");
        assert_eq!(roles(&["train", "eval", "test"])[1], Some(Role::Val));
        assert!(named("train2017").unwrap().plain && named("Test-1").unwrap().plain && !named("seg_train").unwrap().plain);
    }

    #[test]
    fn classes_that_are_called_like_parts_stay_classes() {
        let tree = |paths: &[&str]| {
            Node::of(paths.iter().map(|path| Leaf::new(format!("{path}/1.png"), Stored::File(path.into()))).collect())
        };
        for classes in [
            &["bus", "car", "train"][..],
            &["bullet_train", "steam_train"],
            &["bullet_train", "bus", "test_tube"],
            &["dev", "qa"],
            &["cat", "dog"],
        ] {
            assert_eq!(of(&tree(classes)), None, "{classes:?}");
        }
        for parts in [
            &["Train", "Test"][..],
            &["train"],
            &["seg_train", "seg_test"],
            &["seg_train/a", "seg_train/b", "seg_test/a", "seg_pred"],
            &["train/a", "train/b", "extra"],
            &["train", "test", "samples"],
            &["train.X1/a", "train.X2/b", "val.X/a"],
        ] {
            assert!(of(&tree(parts)).is_some(), "{parts:?}");
        }
    }
}
