//! Every power cut there can be: what the store did to the disk is recorded, and for each prefix of it every state that a
//! file system may leave behind (POSIX promises no more than fsync(2) says) is built and opened again.
//!
//! What was not synced may be there or not, each write and each name for itself and in any order; a write may be torn, or
//! be there in length only. A rename is two changes of names: the new one, and that the old one is gone.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::tests::{deployment, name};
use super::{Store, archive_len};

/// What was done to the disk, and what somebody was promised.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Folder(PathBuf),
    Create(PathBuf),
    /// To the file that was created under this name.
    Write(PathBuf, Vec<u8>),
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    SyncFolder(PathBuf),
    /// A function is to have this archive, or to be gone.
    Asked(&'static str, Option<Vec<u8>>),
    /// What was asked for is acknowledged.
    Told,
}

thread_local! {
    static RECORD: RefCell<Option<Vec<Op>>> = const { RefCell::new(None) };
}

pub(super) fn record(op: Op) {
    RECORD.with_borrow_mut(|record| record.iter_mut().for_each(|ops| ops.push(op.clone())));
}

/// Runs `work` and returns what it did to the disk.
fn recorded(work: impl FnOnce()) -> Vec<Op> {
    RECORD.set(Some(Vec::new()));
    work();
    RECORD.take().unwrap()
}

/// A folder in memory where there is one: thousands of states are built.
struct Dir(PathBuf);

impl Dir {
    fn new(tag: &str) -> Self {
        let memory = Path::new("/dev/shm");
        let above = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let dir = above.join(format!("tinyfaas-{tag}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Who a name leads to: a folder, or the file that was created as this one.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

/// One thing that a power cut may undo.
#[derive(Debug, Clone)]
enum Change {
    Name(PathBuf, Option<Node>),
    /// Bytes of a file, and where.
    Data(usize, usize, Vec<u8>),
}

/// The changes of the first operations, and whether each is sure to be there.
#[derive(Default)]
struct Log {
    changes: Vec<(Change, bool)>,
    files: Vec<(PathBuf, usize)>,
    names: BTreeMap<PathBuf, Node>,
}

impl Log {
    fn play(&mut self, op: &Op) {
        match op {
            Op::Folder(path) => self.name(path, Some(Node::Folder)),
            Op::Create(path) => {
                self.files.push((path.clone(), 0));
                self.name(path, Some(Node::File(self.files.len() - 1)));
            }
            Op::Write(path, bytes) => {
                let file = self.file(path);
                let at = self.files[file].1;
                self.files[file].1 += bytes.len();
                self.changes.push((Change::Data(file, at, bytes.clone()), false));
            }
            Op::Sync(path) => {
                let file = self.file(path);
                self.settle(|change| matches!(change, Change::Data(of, ..) if *of == file));
            }
            Op::Rename(from, to) => {
                let node = self.names[from].clone();
                self.name(to, Some(node));
                self.name(from, None);
            }
            Op::Remove(path) => self.name(path, None),
            Op::SyncFolder(folder) => {
                self.settle(|change| matches!(change, Change::Name(path, _) if path.parent() == Some(folder)));
            }
            Op::Asked(..) => {}
            // Nobody syncs the spool's names. Each would double what there is to try, long after it means anything.
            Op::Told => self
                .settle(|change| matches!(change, Change::Name(path, _) if path.to_string_lossy().contains("/spool/"))),
        }
    }

    fn file(&self, path: &Path) -> usize {
        self.files.iter().rposition(|(created, _)| created == path).unwrap()
    }

    fn name(&mut self, path: &Path, node: Option<Node>) {
        match node.clone() {
            Some(node) => _ = self.names.insert(path.into(), node),
            None => _ = self.names.remove(path),
        }
        self.changes.push((Change::Name(path.into(), node), false));
    }

    fn settle(&mut self, which: impl Fn(&Change) -> bool) {
        self.changes.iter_mut().filter(|(change, _)| which(change)).for_each(|(_, sure)| *sure = true);
    }

    /// Every state that the disk may be in when the power fails now.
    fn states(&self) -> Vec<Tree> {
        let open: Vec<usize> = (0..self.changes.len()).filter(|n| !self.changes[*n].1).collect();
        assert!(open.len() < 12, "too much is left to chance: {open:?}");
        let last = open.iter().rev().find_map(|n| match &self.changes[*n].0 {
            Change::Data(_, _, bytes) => Some((*n, bytes.len())),
            Change::Name(..) => None,
        });
        let mut states = Vec::new();
        for chosen in 0..1_u32 << open.len() {
            let is_there = |n: usize| {
                self.changes[n].1 || open.iter().position(|o| *o == n).is_some_and(|bit| chosen >> bit & 1 == 1)
            };
            states.push(self.tree(is_there, &|_, bytes| bytes.to_vec()));
            let Some((torn, len)) = last.filter(|(n, _)| is_there(*n)) else { continue };
            // At the borders of blocks, in the middle of the first and the last one, and nearly whole.
            let cuts = (512..len).step_by(512).chain([1, 100, len / 2, len - 1]).filter(|cut| (1..len).contains(cut));
            for cut in cuts {
                states.push(
                    self.tree(is_there, &|n, bytes| if n == torn { bytes[..cut].to_vec() } else { bytes.to_vec() }),
                );
            }
            states.push(self.tree(is_there, &|n, bytes| if n == torn { vec![0; bytes.len()] } else { bytes.to_vec() }));
        }
        states
    }

    fn tree(&self, is_there: impl Fn(usize) -> bool, data: &dyn Fn(usize, &[u8]) -> Vec<u8>) -> Tree {
        let (mut names, mut contents) = (BTreeMap::new(), vec![Vec::new(); self.files.len()]);
        for (n, (change, _)) in self.changes.iter().enumerate().filter(|(n, _)| is_there(*n)) {
            match change {
                Change::Name(path, Some(node)) => _ = names.insert(path.clone(), node.clone()),
                Change::Name(path, None) => _ = names.remove(path),
                Change::Data(file, at, bytes) => {
                    let bytes = data(n, bytes);
                    let content: &mut Vec<u8> = &mut contents[*file];
                    content.resize(content.len().max(at + bytes.len()), 0);
                    content[*at..at + bytes.len()].copy_from_slice(&bytes);
                }
            }
        }
        let whole = |node: Node| match node {
            Node::Folder => None,
            Node::File(file) => Some(contents[file].clone()),
        };
        Tree(names.into_iter().map(|(path, node)| (path, whole(node))).collect())
    }
}

/// What is on a disk: folders, and files with their content.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Tree(BTreeMap<PathBuf, Option<Vec<u8>>>);

impl Tree {
    /// Makes it below `to` what it was below `from`. What is in a folder that is not there is not there either.
    fn build(&self, from: &Path, to: &Path) {
        let _ = fs::remove_dir_all(to);
        fs::create_dir(to).unwrap();
        for (path, content) in &self.0 {
            let path = to.join(path.strip_prefix(from).unwrap());
            if path.parent().unwrap().exists() {
                match content {
                    None => fs::create_dir(path).unwrap(),
                    Some(content) => fs::write(path, content).unwrap(),
                }
            }
        }
    }
}

/// Stores, replaces and removes functions; what is recorded tells when each was acknowledged.
fn traffic(dir: &Path) -> String {
    let store = Store::open(dir).unwrap();
    let instance = store.instance().to_owned();
    record(Op::Asked("", None));
    record(Op::Told);
    let put = |function: &'static str, archive: Vec<u8>| {
        record(Op::Asked(function, Some(archive.clone())));
        let mut spool = store.spool().unwrap();
        archive.chunks(3000).for_each(|piece| spool.write_all(piece).unwrap());
        spool.seal(&deployment(function)).unwrap();
        store.commit(&mut spool, &name(function)).unwrap().1.unwrap();
        record(Op::Told);
    };
    let remove = |function: &'static str| {
        record(Op::Asked(function, None));
        store.remove(&name(function)).unwrap().unwrap();
        record(Op::Told);
    };
    let archive = |seed: u8, len: usize| (0..len).map(|n| (n as u8).wrapping_mul(31).wrapping_add(seed)).collect();
    put("a", archive(1, 20_000));
    put("b", archive(2, 10));
    put("a", archive(3, 9_000));
    let mut refused = store.spool().unwrap();
    refused.write_all(&[9; 9_000]).unwrap();
    drop(refused);
    remove("b");
    put("c", archive(4, 600));
    put("b", archive(5, 5_000));
    remove("a");
    put("a", archive(6, 20_000));
    instance
}

/// What may be stored of each function: archives, or that it is gone.
type Promised = BTreeMap<&'static str, Vec<Option<Vec<u8>>>>;

/// What may be stored after these operations; and whether the instance is known.
fn promised(ops: &[Op]) -> (Promised, bool) {
    let mut promised = Promised::new();
    let (mut asked, mut opened) = (None, false);
    for op in ops {
        match op {
            Op::Asked(function, archive) => {
                asked = Some(*function);
                promised.entry(*function).or_insert_with(|| vec![None]).push(archive.clone());
            }
            Op::Told => {
                opened = true;
                let now = promised.get_mut(asked.unwrap()).unwrap();
                now.drain(..now.len() - 1);
            }
            _ => {}
        }
    }
    promised.remove("");
    (promised, opened)
}

/// What is stored, after a check that each function is what its digest says.
fn stored(store: &Store) -> BTreeMap<String, Vec<u8>> {
    let load = |found: crate::function::Deployment| {
        let mut file = fs::File::open(&found.package).unwrap();
        let len = archive_len(&mut file).unwrap() as usize;
        let archive = fs::read(&found.package).unwrap()[..len].to_vec();
        let mut digester = super::Digester::new();
        digester.write_all(&archive).unwrap();
        assert_eq!(digester.digest(&found), found.digest);
        (found.name.to_string(), archive)
    };
    store.load().unwrap().into_iter().map(load).collect()
}

#[test]
fn after_a_power_cut_at_any_moment_each_function_is_there_whole_as_it_was_or_as_it_is() {
    let (made, cut) = (Dir::new("recorded"), Dir::new("cut"));
    let mut instance = String::new();
    let ops = recorded(|| instance = traffic(&made.0.join("state")));
    let (mut log, mut seen, mut cases) = (Log::default(), HashSet::new(), 0);
    for done in 0..=ops.len() {
        if let Some(last) = done.checked_sub(1) {
            log.play(&ops[last]);
        }
        let (promised, opened) = promised(&ops[..done]);
        for tree in log.states() {
            cases += 1;
            if !seen.insert((tree.clone(), promised.clone())) {
                continue;
            }
            tree.build(&made.0, &cut.0);
            let state = cut.0.join("state");
            let store = Store::open(&state).unwrap();
            if opened {
                assert_eq!(store.instance(), instance);
            }
            let found = stored(&store);
            for (function, may_be) in &promised {
                let is = found.get(*function).cloned();
                assert!(may_be.contains(&is), "{function} after {:?}", &ops[..done].last());
            }
            assert!(found.keys().all(|function| promised.contains_key(function.as_str())));
            assert_eq!(fs::read_dir(state.join("spool")).unwrap().count(), 0);
            // Not even what was cut off is damaged: no function has a name before it is whole.
            assert_eq!(fs::read_dir(state.join("functions")).unwrap().count(), found.len());
            drop(store);
            assert_eq!(stored(&Store::open(&state).unwrap()), found);
        }
    }
    eprintln!("{} operations, {cases} power cuts, {} different states of the disk", ops.len(), seen.len());
    assert!(ops.len() > 60 && seen.len() > 500);
}
