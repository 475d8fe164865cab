//! Folders of images, on a disk or inside an archive: parts by their names, one folder a class, or no classes at all.
//!
//! Classes are numbered by their sorted names, and a class's images are everything below its folder, as in torchvision's ImageFolder.
//! Where folders and labels are not clear, there are no labels: they are not needed. Each such guess is a note.

use ctk_core::{Error, Result};

use super::Splits;
use super::content::{self, Content, Labels, unlabelled};
use super::parts::{self, Role};
use super::report::{Found, some};
use super::tree::{Node, below};

pub(super) const NO_IMAGE: &str =
    "ctk reads PNG, JPEG, WebP, TIFF, BMP, GIF and PNM; class folders lie below train/ and test/, or directly here";

/// Images that are left out because no part takes them.
const OUTSIDE: &str = "image outside the parts";

/// Parts of class folders, or class folders alone, or neither.
pub(super) fn open(root: Node, labels: Labels, found: Found) -> Result<Splits> {
    let root = descend(root);
    if let Some(roles) = parts::of(&root) {
        return by_parts(root, &roles, labels, found);
    }
    // A folder of tests must not be trained on for want of another.
    if let Some(held) = root.filled().find(|folder| parts::is_held_back(folder.name())) {
        return Err(Error::usage("there is a test split here, and no train/ beside it")
            .at(&held.path)
            .hint("rename the folder with the training images to `train`"));
    }
    if is_turned(&root) {
        return turned(root, labels, found);
    }
    let (base, mut found) = (root.path.clone(), found);
    let of = content(&base, vec![root], &mut found);
    let (train, unlabelled) = of.trained(&base, labels, &mut found);
    Ok(Splits { unlabelled, found: found.into(), ..Splits::of(train) })
}

/// How folders are known to be parts.
const NAME: &str = "by the folder's name";

/// Splits of the folders that each role has, in the order of the roles.
pub(super) fn splits(base: &str, of: [Vec<Node>; 4], labels: Labels, by: &str, mut found: Found) -> Splits {
    let of = of.map(|folders| content(base, folders, &mut found));
    content::splits(base, of, labels, by, found)
}

/// Every image in a folder and below it, without labels.
pub(super) fn open_flat(root: Node, found: Found) -> Splits {
    let base = root.path.clone();
    Splits { found: found.into(), ..Splits::of(unlabelled(&base, root.leaves())) }
}

/// An archive often unpacks to one folder around the data: a lone folder that holds no image itself is stepped into.
fn descend(mut root: Node) -> Node {
    loop {
        let mut filled = root.folders.iter().enumerate().filter(|(_, folder)| folder.count > 0);
        match (filled.next(), filled.next()) {
            (Some((place, only)), None)
                if root.images.is_empty()
                    && only.images.is_empty()
                    && only.name() != "train"
                    && !parts::is_held_back(only.name()) =>
            {
                root = root.folders.swap_remove(place);
            }
            _ => return root,
        }
    }
}

/// Splits whose parts are folders of `root`.
fn by_parts(root: Node, roles: &[Option<Role>], labels: Labels, mut found: Found) -> Result<Splits> {
    let base = root.path;
    let mut of: [Vec<Node>; 4] = Default::default();
    for leaf in root.images {
        found.pass_over(OUTSIDE, &leaf.path);
    }
    let mut outside = Vec::new();
    for (folder, role) in root.folders.into_iter().filter(|folder| folder.count > 0).zip(roles) {
        match role {
            Some(role) => of[*role as usize].push(folder),
            None => {
                outside.push(folder.name().to_string());
                folder.pass_over(OUTSIDE, &mut found);
            }
        }
    }
    if !outside.is_empty() {
        found.note(format!("no part is called {}: what lies there is left out", some(&outside, outside.len())));
    }
    Ok(splits(&base, of, labels, NAME, found))
}

/// Whether every class folder holds a part to train on and one that is held back (`cat/train`, `cat/test`).
fn is_turned(root: &Node) -> bool {
    let both = |folder: &Node| {
        let names: Vec<&str> = folder.filled().map(Node::name).collect();
        let plain = |name: &&str| parts::named(name).is_some_and(|of| of.plain);
        let roles = parts::roles(&names.iter().copied().filter(plain).collect::<Vec<_>>());
        let has = |role: Role| roles.contains(&Some(role));
        folder.images.is_empty() && has(Role::Train) && (has(Role::Val) || has(Role::Test))
    };
    root.holds_classes() && root.filled().all(both)
}

/// Class folders that hold the parts, put the other way round.
fn turned(root: Node, labels: Labels, mut found: Found) -> Result<Splits> {
    let base = root.path.clone();
    let mut of: [Vec<Node>; 4] = Default::default();
    for class in root.folders.into_iter().filter(|folder| folder.count > 0) {
        let names: Vec<String> = class.filled().map(|part| part.name().to_string()).collect();
        let roles = parts::roles(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let name = class.name().to_string();
        for (part, role) in class.folders.into_iter().filter(|part| part.count > 0).zip(roles) {
            let Some(role) = role else {
                part.pass_over(OUTSIDE, &mut found);
                continue;
            };
            // A part of one class becomes the class of one part: everything below it is the class's.
            let (path, count) = (format!("{}/{name}", part.name()), part.count);
            let class = Node { path, count, images: part.leaves(), folders: Vec::new() };
            let (parts, whole) = (&mut of[role as usize], class.path.split('/').next().unwrap_or_default().to_string());
            match parts.first_mut() {
                Some(first) => {
                    first.count += count;
                    first.folders.push(class);
                }
                None => parts.push(Node { path: whole, count, images: Vec::new(), folders: vec![class] }),
            }
        }
    }
    found.note("each class folder holds parts of its own (class/train, class/test): read as parts of these classes");
    Ok(splits(&base, of, labels, NAME, found))
}

/// What is in one folder or several, whose classes of the same name are one. Class folders without an image are left out, and said.
fn content(base: &str, folders: Vec<Node>, found: &mut Found) -> Content {
    let mut all = Content::default();
    let several = folders.len() > 1;
    let mut empty = Vec::new();
    for folder in folders {
        all.from.push(below(base, &folder.path).to_string());
        // `seg_train/seg_train/class`: what lies around the class folders is no class.
        let folder = around(folder);
        all.loose.extend(folder.images);
        let any = folder.folders.iter().any(|class| class.count > 0);
        for class in folder.folders {
            if class.count == 0 {
                if any {
                    empty.push(format!("`{}`", class.path));
                }
                continue;
            }
            let name = class.name().to_string();
            match all.classes.iter_mut().find(|(known, _)| several && *known == name) {
                Some((_, leaves)) => leaves.extend(class.leaves()),
                None => all.classes.push((name, class.leaves())),
            }
        }
    }
    if several {
        all.classes.sort_by(|a, b| a.0.cmp(&b.0));
    }
    if !empty.is_empty() {
        let (hold, them) = if empty.len() == 1 { ("holds", "it is") } else { ("hold", "they are") };
        found.note(format!("{} {hold} no image: {them} left out", some(&empty, empty.len())));
    }
    all
}

/// The folder that holds the classes: a lone folder around several is stepped into.
fn around(mut folder: Node) -> Node {
    loop {
        let mut filled = folder.folders.iter().enumerate().filter(|(_, inside)| inside.count > 0);
        match (filled.next(), filled.next()) {
            (Some((place, only)), None) if folder.images.is_empty() && only.holds_classes() => {
                folder = folder.folders.swap_remove(place);
            }
            _ => return folder,
        }
    }
}
