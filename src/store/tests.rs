//! The store's rules, as tests.

use std::fs;
use std::time::Duration;

use super::*;
use crate::function::{Limits, Origin, Runtime};

struct Dir(PathBuf);

impl Dir {
    fn new(tag: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("tinyfaas-store-{tag}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        Self(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(super) fn deployment(name: &str) -> Deployment {
    Deployment {
        name: Name::parse(name).unwrap(),
        runtime: Runtime::BINARY,
        image: None,
        threads: 3,
        envs: vec!["KEY=a secret".into()],
        limits: Limits {
            memory: 1 << 26,
            cpu_millis: 500,
            pids: 32,
            timeout: Duration::from_millis(1500),
            concurrency: 4,
            queue: 5,
        },
        auth: vec![crate::tokens::Digest::of("t")],
        network: false,
        idle: Some(Duration::from_millis(2500)),
        origin: Origin::Folder,
        digest: String::new(),
        package: PathBuf::new(),
        subfolder: "a/b".into(),
    }
}

pub(super) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// Where a function's file is that survives a power cut.
fn committed(result: std::io::Result<(PathBuf, std::io::Result<()>)>) -> PathBuf {
    let (path, kept) = result.unwrap();
    kept.unwrap();
    path
}

fn put(store: &Store, name: &str, archive: &[u8]) -> PathBuf {
    let mut spool = store.spool().unwrap();
    spool.write_all(archive).unwrap();
    spool.seal(&deployment(name)).unwrap();
    committed(store.commit(&mut spool, &Name::parse(name).unwrap()))
}

#[test]
fn what_was_stored_comes_back_with_the_digest_it_was_started_under() {
    let dir = Dir::new("back");
    let store = Store::open(&dir.0).unwrap();
    let mut spool = store.spool().unwrap();
    spool.write_all(b"archive").unwrap();
    let digest = spool.digest(&deployment("f"));
    spool.seal(&deployment("f")).unwrap();
    let path = committed(store.commit(&mut spool, &deployment("f").name));
    let instance = store.instance().to_owned();
    drop((spool, store));
    let store = Store::open(&dir.0).unwrap();
    assert_eq!(store.instance(), instance);
    let loaded = store.load().unwrap();
    let expected = Deployment { digest, package: path.clone(), ..deployment("f") };
    assert_eq!(format!("{loaded:?}"), format!("{:?}", [expected]));
    assert_eq!(archive_len(&mut File::open(path).unwrap()).unwrap(), 7);
}

#[test]
fn another_version_has_another_digest() {
    let dir = Dir::new("digest");
    let store = Store::open(&dir.0).unwrap();
    let mut spool = store.spool().unwrap();
    let first = spool.digest(&deployment("f"));
    assert_ne!(first, spool.digest(&Deployment { threads: 4, ..deployment("f") }));
    assert_ne!(first, spool.digest(&Deployment { network: true, ..deployment("f") }));
    spool.write_all(b"x").unwrap();
    assert_ne!(first, spool.digest(&deployment("f")));
}

#[test]
fn every_cut_and_every_changed_byte_is_set_aside_and_the_others_are_loaded() {
    let dir = Dir::new("damage");
    let store = Store::open(&dir.0).unwrap();
    put(&store, "good", b"archive");
    let path = put(&store, "bad", b"archive");
    let whole = fs::read(&path).unwrap();
    let damaged = (0..whole.len()).map(|cut| whole[..cut].to_vec()).chain((0..whole.len()).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        bytes
    }));
    for bytes in damaged {
        fs::write(&path, &bytes).unwrap();
        let names: Vec<_> = store.load().unwrap().into_iter().map(|d| d.name.to_string()).collect();
        assert_eq!(names, ["good"]);
        assert_eq!(fs::read(path.with_extension("damaged")).unwrap(), bytes);
    }
}

#[test]
fn a_spool_that_is_not_committed_leaves_nothing() {
    let dir = Dir::new("spool");
    let store = Store::open(&dir.0).unwrap();
    let mut spool = store.spool().unwrap();
    spool.write_all(b"archive").unwrap();
    let path = spool.path().to_owned();
    assert_eq!((spool.size(), path.exists()), (7, true));
    drop(spool);
    assert!(!path.exists());
    fs::write(&path, b"left by a crash").unwrap();
    drop(store);
    Store::open(&dir.0).unwrap();
    assert!(!path.exists());
}

#[test]
fn removing_is_final_and_removing_again_is_no_error() {
    let dir = Dir::new("remove");
    let store = Store::open(&dir.0).unwrap();
    put(&store, "f", b"archive");
    let name = Name::parse("f").unwrap();
    store.remove(&name).unwrap().unwrap();
    store.remove(&name).unwrap().unwrap();
    assert!(store.load().unwrap().is_empty());
}

#[test]
fn a_second_instance_on_the_same_directory_is_refused() {
    let dir = Dir::new("second");
    let _first = Store::open(&dir.0).unwrap();
    let refused = Store::open(&dir.0).unwrap_err();
    assert!(refused.contains("--state-dir"), "{refused}");
}

#[test]
fn what_is_whole_but_not_for_this_program_is_left_as_it_is() {
    let dir = Dir::new("left");
    let store = Store::open(&dir.0).unwrap();
    let path = put(&store, "good", b"archive");
    let functions = path.parent().unwrap();
    // Somebody copied it: two files of one function would fight for its name.
    fs::copy(&path, functions.join("copy.fn")).unwrap();
    // Such as a folder, or a file of another user: it cannot be read now.
    fs::create_dir(functions.join("folder.fn")).unwrap();
    let names: Vec<_> = store.load().unwrap().into_iter().map(|d| d.name.to_string()).collect();
    assert_eq!(names, ["good"]);
    assert!(functions.join("copy.fn").exists() && functions.join("folder.fn").exists());
}

#[test]
fn a_digest_can_be_known_before_anything_is_written() {
    let dir = Dir::new("ahead");
    let store = Store::open(&dir.0).unwrap();
    let mut spool = store.spool().unwrap();
    let mut digester = Digester::new();
    for to in [&mut spool as &mut dyn Write, &mut digester] {
        to.write_all(b"archive").unwrap();
    }
    assert_eq!(spool.digest(&deployment("f")), digester.digest(&deployment("f")));
}

#[test]
fn a_lock_that_one_who_was_killed_left_to_a_starting_process_is_waited_for() {
    let dir = Dir::new("lock");
    drop(Store::open(&dir.0).unwrap());
    let held = File::open(dir.0.join("lock")).unwrap();
    held.try_lock().unwrap();
    let release = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        drop(held);
    });
    Store::open(&dir.0).unwrap();
    release.join().unwrap();
}
