//! Packs what the server hands out as it is: it takes a sixth of its room in the program, and most clients take it packed.

use std::fs;
use std::path::Path;

/// Files that are embedded as gzip (RFC 1952), `NAME.gz` in `OUT_DIR`.
const PACKED: [&str; 1] = ["src/management/openapi.json"];

fn main() -> std::io::Result<()> {
    let out = std::env::var_os("OUT_DIR").ok_or_else(|| std::io::Error::other("cargo sets OUT_DIR"))?;
    for file in PACKED {
        println!("cargo::rerun-if-changed={file}");
        let bytes = fs::read(file)?;
        // No name and no time: the same bytes from every build.
        let mut packed = b"\x1f\x8b\x08\0\0\0\0\0\x02\xff".to_vec();
        packed.extend(miniz_oxide::deflate::compress_to_vec(&bytes, 10));
        packed.extend(crc32fast::hash(&bytes).to_le_bytes());
        packed.extend((bytes.len() as u32).to_le_bytes());
        let name = Path::new(file).file_name().unwrap_or_default().to_string_lossy();
        fs::write(Path::new(&out).join(format!("{name}.gz")), packed)?;
    }
    Ok(())
}
