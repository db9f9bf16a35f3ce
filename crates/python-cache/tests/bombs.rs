//! Pickles that are small and would cost much end at once, with a reason.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    thread,
    time::{Duration, Instant},
};

use python_cache::{Decoded, Limits, decode};

/// More than any takes on a busy machine without optimisation; a bomb that goes off takes hours.
const SOON: Duration = Duration::from_secs(30);

/// Less text than by default: these tests run without optimisation.
const LIMITS: Limits = Limits { max_json_bytes: 2 << 20, max_nodes: 300_000, max_depth: 128 };

/// Why a pickle is left as it is, on a stack as small as a thread has by default.
fn reason(pickle: Vec<u8>) -> String {
    let read = move || {
        let begun = Instant::now();
        let decoded = decode(&pickle, &LIMITS);
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        match decoded {
            Decoded::Json(json) => panic!("{} bytes of JSON", json.len()),
            Decoded::Opaque { reason } => reason,
        }
    };
    thread::Builder::new().stack_size(2 << 20).spawn(read).unwrap().join().unwrap()
}

const TOO_MANY: &str = "it has more than 300000 values, with repeated ones";
const TOO_LONG: &str = "its JSON has more than 2097152 bytes";
const TOO_DEEP: &str = "it is nested deeper than 128, or contains itself";
const CUT_SHORT: &str = "the pickle is cut short";

#[test]
fn a_shared_string_is_not_repeated_without_end() {
    // 100 kB of text, then 1,900 times a reference to it.
    let mut pickle = b"\x80\x02](X\xa0\x86\x01\0".to_vec();
    pickle.extend(b"x".repeat(100_000));
    pickle.extend(b"q\0".iter().chain(b"h\0".repeat(1_899).iter()));
    pickle.extend(b"e.");
    assert_eq!(reason(pickle), TOO_LONG);
}

#[test]
fn laughs_end() {
    // Lists of two references to the list before: 2^26 values.
    let mut pickle = b"\x80\x02](K\x01K\x01eq\0".to_vec();
    for level in 0..26 {
        pickle.extend([b'0', b']', b'(', b'h', level, b'h', level, b'e', b'q', level + 1]);
    }
    pickle.push(b'.');
    assert_eq!(reason(pickle), TOO_MANY);
}

#[test]
fn laughs_of_nothing_end() {
    // As above, of empty tuples: next to no text.
    let mut pickle = b"\x80\x02)q\0".to_vec();
    for level in 0..26 {
        pickle.extend([b'0', b'h', level, b'h', level, 0x86, b'q', level + 1]);
    }
    pickle.push(b'.');
    assert_eq!(reason(pickle), TOO_MANY);
}

#[test]
fn deep_nesting_takes_no_stack() {
    let lists = [b"]".repeat(200_000), b"a".repeat(199_999), b".".to_vec()].concat();
    assert_eq!(reason(lists), TOO_DEEP);
    let tuples = [&b"("[..], &b"\x85".repeat(200_000), b"."].concat();
    assert_eq!(reason(tuples), "an instruction lacks the values it needs");
    let tuples = [b"N".to_vec(), b"\x85".repeat(200_000), b".".to_vec()].concat();
    assert_eq!(reason(tuples), TOO_DEEP);
    // As the key of a dict, the callee of a call, the categories of an index.
    let keys = [b"}".to_vec(), b"N".to_vec(), b"\x85".repeat(200_000), b"Ns.".to_vec()].concat();
    assert_eq!(reason(keys), TOO_DEEP);
    let marks = [b"(".repeat(200_000), b".".to_vec()].concat();
    assert_eq!(reason(marks), "an instruction lacks the values it needs");
}

#[test]
fn lengths_are_not_believed() {
    let huge = (1_u64 << 40).to_le_bytes();
    // BINUNICODE8, BINBYTES8, BYTEARRAY8, FRAME.
    for op in [0x8d, 0x8e, 0x96, 0x95] {
        let pickle = [&b"\x80\x05"[..], &[op], &huge, b"x."].concat();
        assert_eq!(reason(pickle), CUT_SHORT, "{op:#x}");
    }
    for op in [b'X', b'B', b'T', 0x8b] {
        let pickle = [&b"\x80\x02"[..], &[op], &u32::MAX.to_le_bytes(), b"x."].concat();
        assert_eq!(reason(pickle), CUT_SHORT, "{op:#x}");
    }
    assert_eq!(reason(b"]r\xff\xff\xff\x7f.".to_vec()), "a memo number is too large");
    assert_eq!(reason(b"]p99999999999\n.".to_vec()), "a memo number is too large");
}

#[test]
fn huge_ints_are_not_converted() {
    let too_long = "an int has more than 4300 digits";
    let bytes =
        [&b"\x80\x02\x8b"[..], &20_000_000_u32.to_le_bytes(), &b"\x01".repeat(20_000_000), b"."];
    assert_eq!(reason(bytes.concat()), too_long);
    for op in [b'I', b'L'] {
        let digits = [&[op][..], &b"9".repeat(20_000_000), b"\n."].concat();
        assert_eq!(reason(digits), too_long);
    }
    // Two billion digits that are not there.
    assert_eq!(reason(b"\x80\x02\x8b\xff\xff\xff\x7f\x01.".to_vec()), CUT_SHORT);
}

#[test]
fn as_many_ints_as_fit_are_read_soon() {
    let int = [&b"\x8b\xfa\x06\0\0"[..], &[0x7f; 1_786]].concat();
    let pickle = [&b"\x80\x02]("[..], &int.repeat(200), b"e."].concat();
    let begun = Instant::now();
    let Decoded::Json(json) = decode(&pickle, &LIMITS) else { panic!("opaque") };
    assert!(begun.elapsed() < SOON && json.len() > 200 * 4_298, "{:?}", begun.elapsed());
}

#[test]
fn a_set_of_a_shared_list_is_not_copied() {
    // A list of 64,000 items, of which 16,000 frozensets are made: a billion items in all.
    let list = [b"](".to_vec(), b"N".repeat(64_000), b"eq\x01".to_vec()].concat();
    let calls = b"h\x02h\x03R".repeat(16_000);
    let start = b"\x80\x02cbuiltins\nfrozenset\nq\x02";
    let pickle = [&start[..], &list, b"\x85q\x03(", &calls, b"t."].concat();
    assert_eq!(reason(pickle), TOO_MANY);
}

#[test]
fn text_is_not_made_bytes_without_end() {
    let text = [&b"X\0\0\x10\0"[..], &b"x".repeat(1 << 20)].concat();
    let args =
        [&b"\x80\x02c_codecs\nencode\nq\0("[..], &text, b"X\x06\0\0\0latin1tq\x01("].concat();
    let pickle = [args, b"h\0h\x01R".repeat(100_000), b"t.".to_vec()].concat();
    assert_eq!(reason(pickle), "its bytes take more than may be decoded");
}

/// A numpy array: the state says what it is.
fn array(shape: &str, dtype: &str, data: &str) -> String {
    let dtype = format!("cnumpy\ndtype\n(V{dtype}\nI00\nI01\ntR(I3\nV<\nNNNI-1\nI-1\nI0\ntb");
    format!(
        "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\nt\
         c_codecs\nencode\n(Vb\nVlatin1\ntRtR(I1\n{shape}{dtype}I00\n{data}tb"
    )
}

#[test]
fn shapes_are_not_believed() {
    let empty = "c_codecs\nencode\n(V\nVlatin1\ntR";
    let wrong = "an array has not as many bytes as its elements take";
    let shape = "(I1099511627776\nI1099511627776\nt";
    assert_eq!(reason(format!("{}.", array(shape, "f8", empty)).into()), "an array is too large");
    assert_eq!(reason(format!("{}.", array("(I1099511627776\nt", "f8", empty)).into()), wrong);
    // No elements, but rows of none.
    let rows = "(I1099511627776\nI0\nt";
    assert_eq!(reason(format!("{}.", array(rows, "f8", empty)).into()), TOO_LONG);
    let no_size = "an array of complex or other elements is not read";
    assert_eq!(reason(format!("{}.", array("(I1099511627776\nt", "U0", empty)).into()), no_size);
    let dimensions = format!("({}t", "I1\n".repeat(200));
    let unread = "an array of numpy has data that is not read";
    assert_eq!(reason(format!("{}.", array(&dimensions, "f8", empty)).into()), unread);
}

/// An index of 2^60 labels.
const RANGE: &str = "cpandas.core.indexes.base\n_new_Index\n(cpandas\nRangeIndex\n\
    (dVstart\nI0\nsVstop\nI1152921504606846976\nsVstep\nI1\nstR";

#[test]
fn a_range_is_not_written_without_end() {
    assert_eq!(reason(format!("{RANGE}.").into()), TOO_LONG);
    // A frame of so many rows and no columns.
    let none = RANGE.replace("I1152921504606846976", "I0");
    let frame = |columns: &str, rows: &str| {
        format!(
            "ccopy_reg\n_reconstructor\n(cpandas\nDataFrame\nc__builtin__\nobject\nNtR\
             (dV_mgr\ncpandas.core.internals.managers\nBlockManager\n((t(l{columns}a{rows}atRsb."
        )
    };
    assert_eq!(reason(frame(&none, RANGE).into()), TOO_LONG);
    assert_eq!(reason(frame(RANGE, &none).into()), "a frame has more than 100000 columns");
}

#[test]
fn categories_that_are_their_own_categories_end() {
    // The index is remembered before its data, which refers to it.
    let index = "cpandas.core.indexes.base\n_new_Index\n(cpandas\nCategoricalIndex\n(dp0\ntRp1\n";
    let codes = array("(I0\nt", "i8", "c_codecs\nencode\n(V\nVlatin1\ntR");
    let dtype = "cpandas\nCategoricalDtype\n(tR(dVcategories\ng1\nsb";
    let data = format!(
        "cpandas._libs.arrays\n__pyx_unpickle_NDArrayBacked\n(cpandas\nCategorical\nI0\nNtR({dtype}{codes}tb"
    );
    let pickle = format!("{index}0g0\nVdata\n{data}s0g1\n.");
    assert_eq!(reason(pickle.into()), "an object of pandas has data that is not read");
}

#[test]
fn what_contains_itself_ends() {
    assert_eq!(reason(b"\x80\x02]q\0h\0a.".to_vec()), TOO_DEEP);
    assert_eq!(reason(b"\x80\x02}q\0h\0h\0s.".to_vec()), TOO_DEEP);
    assert_eq!(reason(b"\x80\x04\x8f\x94(h\0\x90.".to_vec()), TOO_DEEP);
    // A list that holds itself a hundred times.
    let wide = [&b"\x80\x02]q\0("[..], &b"h\0".repeat(100), b"e."].concat();
    assert_eq!(reason(wide), TOO_DEEP);
    // An object that is its own state, arguments of its own call.
    let zone = b"cdatetime\ntimedelta\n(]q\0h\0h\0tR.".to_vec();
    assert_eq!(reason(zone), "an int is missing in an object's data");
}

#[test]
fn limits_are_the_callers() {
    let list = b"\x80\x02](K\x01K\x02K\x03e.";
    let tight = Limits { max_json_bytes: 7, max_nodes: 8, max_depth: 1 };
    assert_eq!(decode(list, &tight), Decoded::Json(b"[1,2,3]".into()));
    for (limits, reason) in [
        (Limits { max_json_bytes: 6, ..tight }, "its JSON has more than 6 bytes"),
        (Limits { max_nodes: 7, ..tight }, "it has more than 7 values"),
        (Limits { max_nodes: 3, ..tight }, "it has more than 3 values"),
        (Limits { max_depth: 0, ..tight }, "it is nested deeper than 0, or contains itself"),
    ] {
        assert_eq!(decode(list, &limits), Decoded::Opaque { reason: reason.into() });
    }
}
