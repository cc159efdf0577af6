//! What `upload` takes and refuses, as tests.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::*;

fn parse_in_pieces(body: &[u8], piece: usize, most: u64) -> Result<(Parsed, Vec<u8>), Error> {
    let (mut parser, mut zip) = (Parser::new(most), Vec::new());
    for part in body.chunks(piece.max(1)) {
        parser.feed(part, &mut zip)?;
    }
    let parsed = parser.finish()?;
    if let Some(size) = parsed.zip {
        assert_eq!(size, zip.len() as u64);
    }
    Ok((parsed, zip))
}

fn parse(body: impl AsRef<[u8]>) -> Result<(Parsed, Vec<u8>), Error> {
    parse_in_pieces(body.as_ref(), usize::MAX, 1 << 20)
}

fn refusal(body: impl AsRef<[u8]>) -> String {
    let body = body.as_ref();
    let text = parse(body).unwrap_err().to_string();
    for piece in 1..4 {
        let in_pieces = parse_in_pieces(body, piece, 1 << 20).unwrap_err().to_string();
        assert_eq!(in_pieces, text, "in pieces of {piece}");
    }
    text
}

#[test]
fn the_archive_is_decoded_and_the_rest_is_kept_however_the_body_is_cut() {
    let zip: Vec<u8> = (0..=255).cycle().take(5000).collect();
    let body =
        format!(" {{\"name\": \"a\\\"b\", \"zip\" : \"{}\", \"l\": [{{\"zip\": \"no}}\"}}]}}\n", STANDARD.encode(&zip));
    for piece in [1, 2, 3, 5, 1000, 100_000] {
        let (parsed, out) = parse_in_pieces(body.as_bytes(), piece, 5000).unwrap();
        assert_eq!(out, zip, "pieces of {piece}");
        assert_eq!(parsed.rest, " {\"name\": \"a\\\"b\", \"zip\" : \"\", \"l\": [{\"zip\": \"no}\"}]}\n");
    }
}

#[test]
fn base64_of_every_length_with_and_without_padding() {
    for len in 0..20 {
        let zip: Vec<u8> = (0..len).map(|n: u8| n.wrapping_mul(37)).collect();
        for text in [STANDARD.encode(&zip), STANDARD_NO_PAD.encode(&zip)] {
            for piece in [1, 3, 100] {
                let (_, out) = parse_in_pieces(format!("{{\"zip\":\"{text}\"}}").as_bytes(), piece, 20).unwrap();
                assert_eq!(out, zip, "{text}");
            }
        }
    }
}

#[test]
fn escapes_and_line_ends_in_base64_are_understood() {
    // 0xfb 0xff 0xbf is "+/+/".
    for text in ["+/+/", "\\u002b\\/+\\u002F", "+/\\n+/\\r\\n", "+/\n+/\r\n", "+\\u000a/+/"] {
        assert_eq!(parse(format!("{{\"zip\":\"{text}\"}}")).unwrap().1, [0xfb, 0xff, 0xbf], "{text}");
    }
    assert_eq!(parse(r#"{"zip":"QQ\u003d\u003d"}"#).unwrap().1, b"A");
    assert_eq!(parse(r#"{"zip":"QQ=\n=\n"}"#).unwrap().1, b"A");
    assert_eq!(parse(r#"{"z\u0069p":"QQ"}"#).unwrap().1, b"A");
    assert_eq!(parse(r#"{"\u007a\u0069\u0070":"QQ"}"#).unwrap().1, b"A");
}

#[test]
fn a_body_without_an_archive_is_fine_and_only_the_top_level_key_counts() {
    let (parsed, out) = parse(r#"{"name":"zip","a":{"zip":"x"},"b":["zip"],"zip2":1}"#).unwrap();
    assert_eq!((parsed.zip, out.len()), (None, 0));
    assert_eq!(parse(r#"{"zip":""}"#).unwrap().0.zip, Some(0));
}

#[test]
fn broken_base64_is_refused_at_its_byte() {
    for (zip, at, why) in [
        ("QUJD*", 12, "standard base64"),
        ("QUJD-", 12, "URL form"),
        ("QUJD_", 12, "URL form"),
        ("QUJD QUJD", 12, "white space"),
        ("QUJD\\t", 13, "standard base64"),
        ("QUJD\\u00e4", 17, "standard base64"),
        ("QUJD\\u012b", 17, "standard base64"),
        ("QUJD\\u00zz", 16, "standard base64"),
        ("Q", 9, "cut"),
        ("QUJDQ", 13, "cut"),
        ("QQ=", 11, "cut"),
        ("Q===", 9, "padding"),
        ("====", 8, "padding"),
        ("QUI==", 12, "padding"),
        ("QQ==QQ==", 12, "after the base64 padding"),
        ("QQ=Q", 11, "after the base64 padding"),
        ("QUJD\u{e4}", 12, "standard base64"),
    ] {
        let text = refusal(format!("{{\"zip\":\"{zip}\"}}"));
        assert!(text.contains(why) && text.ends_with(&format!("(at byte {at} of the body)")), "{zip}: {text}");
    }
    assert!(refusal(b"{\"zip\":\"\0\"}").contains("at byte 8"));
}

#[test]
fn what_is_not_one_json_object_is_refused_at_its_byte() {
    for (body, want) in [
        ("", "the body is empty; a JSON object is needed (at byte 0 of the body)"),
        ("  ", "the body is empty; a JSON object is needed (at byte 2 of the body)"),
        ("name=a", "the body has to be a JSON object, which begins with { (at byte 0 of the body)"),
        ("[1]", "the body has to be a JSON object, which begins with { (at byte 0 of the body)"),
        ("{\"a\":1", "the body ends in the middle of the JSON object (at byte 6 of the body)"),
        ("{\"zip\":\"QUJD", "the body ends in the middle of the JSON object (at byte 12 of the body)"),
        ("{}x", "something follows the JSON object; only white space may (at byte 2 of the body)"),
        ("{}{}", "something follows the JSON object; only white space may (at byte 2 of the body)"),
        ("{\"zip\":null}", "\"zip\" has to be a string: the archive in base64 (at byte 7 of the body)"),
        ("{\"zip\":[\"QQ\"]}", "\"zip\" has to be a string: the archive in base64 (at byte 7 of the body)"),
        ("{\"zip\":\"\",\"zip\":\"\"}", "\"zip\" is there twice; send one archive (at byte 14 of the body)"),
        ("{\"zip\":\"\",\"z\\u0069p\":\"\"}", "\"zip\" is there twice; send one archive (at byte 19 of the body)"),
    ] {
        assert_eq!(refusal(body), want, "{body}");
    }
    for body in [
        "{\"a\":}",
        "{\"a\" 1}",
        "{a:1}",
        "{\"a\":1,}",
        "{\"a\":[1}]",
        "{]",
        "{\"zip\":\"\" 1}",
        "{\"zip\"}",
        "{\"a\":01}",
    ] {
        assert!(refusal(body).starts_with("not JSON: "), "{body}");
    }
    assert!(refusal(b"{\"a\":\"\xff\"}").contains("not UTF-8 (at byte 6 "));
    // After the archive, the place is that in the body.
    assert!(refusal(b"{\"zip\":\"QUJDQUJD\",\"a\":\"\xff\"}").contains("not UTF-8 (at byte 23 "));
    let text = refusal("{\"zip\":\"QUJDQUJD\",\n\"a\":x}");
    assert!(text.ends_with("(at byte 23 of the body)"), "{text}");
}

#[test]
fn depth_and_sizes_have_bounds() {
    let nested = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
    assert!(parse(nested(MAX_DEPTH - 1)).is_ok());
    assert!(parse(nested(MAX_DEPTH)).unwrap_err().to_string().contains("deeper than 32"));

    let filled = |n: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(n));
    assert!(parse(filled(MAX_REST - 8)).is_ok());
    assert!(matches!(parse(filled(MAX_REST - 7)), Err(Error::TooLarge(_))));
    assert!(matches!(parse(" ".repeat(MAX_REST + 1)), Err(Error::TooLarge(_))));

    let body = format!("{{\"zip\":\"{}\"}}", STANDARD.encode([7; 100]));
    assert!(parse_in_pieces(body.as_bytes(), 7, 100).is_ok());
    match parse_in_pieces(body.as_bytes(), 7, 99) {
        Err(Error::TooLarge(text)) => assert_eq!(text, "the zip archive is larger than 99 bytes"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn cut_anywhere_a_body_is_refused() {
    let body = r#"{"name":"a","zip":"QUJD\u002bQ==","threads":1}"#;
    assert!(parse(body).is_ok());
    for len in 0..body.len() {
        assert!(matches!(parse(&body[..len]), Err(Error::Bad(_))), "cut at {len}");
    }
}

#[test]
fn no_single_wrong_byte_panics_and_pieces_never_matter() {
    let good = br#"{"name":"a\\","zip":"QUJD\u002bQ==","l":[1,{"b":null}]}"#;
    for at in 0..good.len() {
        for value in 0..=255 {
            let mut body = *good;
            body[at] = value;
            let whole = parse(body).map_err(|e| e.to_string());
            assert_eq!(whole, parse_in_pieces(&body, 1, 1 << 20).map_err(|e| e.to_string()));
        }
    }
}
