//! Folders of images, on disk or inside an archive: parts recognised by their names, one folder for each class, or no classes.
//!
//! Classes are numbered by their sorted names, and a class's images are all images below its folder, as in torchvision's ImageFolder. Where
//! folders and labels are not clear, images go without labels, which training does not need. Each such decision is noted.

use ctk_core::Result;

use super::Splits;
use super::content::{self, Content, Labels, unlabelled};
use super::parts::{self, Role};
use super::report::{Found, some};
use super::tree::{Node, below};

pub(super) const NO_IMAGE: &str =
    "ctk reads PNG, JPEG, WebP, TIFF, BMP, GIF and PNM; class folders lie below train/ and test/, or directly here";

const MOVE: &str = "move the training images, or the folders of their classes, into a new folder `train` beside it; if it is a class of that \
                    name, rename it";

/// Images that are left out because they are in no part.
const OUTSIDE: &str = "image outside the parts";

/// Opens parts with class folders, class folders alone, or images alone.
pub(super) fn open(root: Node, labels: Labels, found: Found) -> Result<Splits> {
    let root = descend(root);
    if let Some(roles) = parts::of(&root) {
        return by_parts(root, &roles, labels, found);
    }
    let held: Vec<bool> = root.filled().map(|folder| parts::is_held_back(folder.name())).collect();
    if held.contains(&true) {
        return beside(root, &held, labels, found);
    }
    if is_turned(&root) {
        return turned(root, labels, found);
    }
    let (base, mut found) = (root.path.clone(), found);
    let of = content(&base, vec![root], &mut found);
    let (train, unlabelled) = of.trained(&base, labels, &mut found);
    Ok(Splits { unlabelled, found: found.into(), ..Splits::of(train) })
}

/// How parts are recognised.
const NAME: &str = "by the folder's name";

/// The splits of the folders in each role, in the order of the roles.
pub(super) fn splits(base: &str, of: [Vec<Node>; 4], labels: Labels, by: &str, mut found: Found) -> Splits {
    let of = of.map(|folders| content(base, folders, &mut found));
    content::splits(base, of, labels, by, found)
}

/// Every image in a folder and below it, without labels.
pub(super) fn open_flat(root: Node, found: Found) -> Splits {
    let base = root.path.clone();
    Splits { found: found.into(), ..Splits::of(unlabelled(&base, root.leaves())) }
}

/// Archives often unpack to one folder around the data: a single folder without images beside it is entered.
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

/// The splits of `root`, which has folders that are called as parts that are held back (`held`), and none that is called as the training
/// part. The rest is the training part if it looks like one: several folders, images, or a folder of class folders.
fn beside(root: Node, held: &[bool], labels: Labels, mut found: Found) -> Result<Splits> {
    let base = root.path.clone();
    let names: Vec<String> = root.filled().zip(held).filter(|(_, held)| **held).map(|(folder, _)| folder.name().into()).collect();
    let roles = parts::roles(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let (mut rest, mut parts) = (Vec::new(), Vec::new());
    for (folder, held) in root.folders.into_iter().filter(|folder| folder.count > 0).zip(held) {
        if *held { parts.push(folder) } else { rest.push(folder) }
    }
    let holds_them = |folder: &Node| folder.filled().next().is_some() || parts::is_plain(folder.name());
    let trains = !root.images.is_empty() || rest.len() > 1 || rest.iter().any(holds_them);
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    if !trains {
        // These images must not be trained on just because there are no others. They can be looked at.
        let what = if roles.contains(&Some(Role::Test)) { "test" } else { "validation" };
        let what = format!("there is a {what} split here ({}), and no train/ beside it", quoted[0]);
        found.note(format!("{what}: all images are read"));
        found.untrainable = Some([what, MOVE.to_string()]);
        parts.extend(rest);
        // Without class folders in them, the parts may be classes of such names.
        if parts.iter().all(|part| part.filled().next().is_none()) {
            let count = parts.iter().map(|part| part.count).sum();
            parts = vec![Node { path: base.clone(), folders: parts, count, ..Node::default() }];
        }
        let (train, unlabelled) = content(&base, parts, &mut found).trained(&base, labels, &mut found);
        return Ok(Splits { unlabelled, found: found.into(), ..Splits::of(train) });
    }
    let is = if names.len() == 1 { "is a part that is" } else { "are parts that are" };
    found.note(format!(
        "{} {is} held back, and everything beside is the training part. If one of these is a class, rename it",
        some(&quoted, quoted.len())
    ));
    let count = root.images.len() + rest.iter().map(|folder| folder.count).sum::<usize>();
    let mut of: [Vec<Node>; 4] = Default::default();
    of[Role::Train as usize].push(Node { path: base.clone(), images: root.images, folders: rest, count });
    parts.into_iter().zip(roles).for_each(|(part, role)| of[role.unwrap_or(Role::Test) as usize].push(part));
    Ok(splits(&base, of, labels, NAME, found))
}

/// The splits of parts that are folders of `root`.
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
        found.note(format!("no part is called {}: its images are left out", some(&outside, outside.len())));
    }
    Ok(splits(&base, of, labels, NAME, found))
}

/// Whether every class folder has a part to train on and one that is held back (`cat/train`, `cat/test`).
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

/// Regroups class folders that contain the parts.
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
            // A part inside a class folder becomes the class's folder of that part.
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

/// The content of one or several folders; classes of the same name are merged. Class folders without images are left out and noted.
fn content(base: &str, folders: Vec<Node>, found: &mut Found) -> Content {
    let mut all = Content::default();
    let several = folders.len() > 1;
    let mut empty = Vec::new();
    for folder in folders {
        let from = below(base, &folder.path);
        all.from.extend((!from.is_empty()).then(|| from.to_string()));
        // In `seg_train/seg_train/class`, the folder around the class folders is no class.
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

/// The folder that holds the classes: a single folder around several is entered.
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
