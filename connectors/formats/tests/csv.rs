//! Messages of CSV.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::{DataType, Field, Fields, Int64Type, Schema};
use formats::{Compression, CsvDecoder, CsvOptions, CsvWriter, Decoder, Decoding, Format, JsonOptions, UnknownFields};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use self::rows::{columns, some_rows};

mod rows;

fn orders() -> Fields {
    vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("n", DataType::Int64, true),
        Field::new("note", DataType::Utf8, true),
    ]
    .into()
}

fn decoder(columns: Fields, csv: CsvOptions, unknown: UnknownFields) -> Decoder {
    let declared = columns.iter().map(|column| column.name().clone()).chain(["unread".to_string()]).collect();
    let json = JsonOptions { unknown, declared, ..JsonOptions::default() };
    let decoding = Decoding { format: Format::Csv, csv, json, ..Decoding::default() };
    Decoder::of(Arc::new(Schema::new(columns)), &decoding, None, Arc::new(|| {})).expect("the table can be read")
}

/// With a header and what goes with it.
fn usual() -> Decoder {
    decoder(orders(), CsvOptions::default(), UnknownFields::Ignore)
}

fn without_header() -> CsvOptions {
    CsvOptions { header: false, ..CsvOptions::default() }
}

fn ids(decoder: &mut Decoder) -> Vec<String> {
    let batch = decoder.finish().unwrap();
    batch.column(0).as_string::<i32>().iter().map(|id| id.unwrap().to_string()).collect()
}

#[test]
fn each_message_says_the_order_of_its_fields_and_one_that_it_does_not_have_is_null() {
    let mut decoder = usual();
    assert_eq!(decoder.push(b"\xef\xbb\xbfid,n,note\r\na,1,x\r\n\r\nb,,\r\n", None), Ok(2));
    assert_eq!(decoder.push(b"id,n,note\r\nc,3,\"y, and\r\n \"\"z\"\"\"", None), Ok(1));
    assert_eq!(decoder.push(b"unread,n,id\n7,4,d\n", None), Ok(1));
    assert_eq!(decoder.push(b"id,n,note,more\ne,5,,7\n", None), Ok(1), "the last one begins like it");
    assert_eq!(decoder.push(b"id,n,note", None), Ok(0));
    assert_eq!(decoder.push(b"id,n,notes\nf,6,7\n", None), Ok(1), "and so does this one");
    let batch = decoder.finish().unwrap();
    let ids: Vec<_> = batch.column(0).as_string::<i32>().iter().flatten().collect();
    assert_eq!(ids, ["a", "b", "c", "d", "e", "f"]);
    let numbers: Vec<_> = batch.column(1).as_primitive::<Int64Type>().iter().collect();
    assert_eq!(numbers, [Some(1), None, Some(3), Some(4), Some(5), Some(6)]);
    let notes: Vec<_> = batch.column(2).as_string::<i32>().iter().collect();
    assert_eq!(notes, [Some("x"), Some(""), Some("y, and\r\n \"z\""), None, Some(""), None]);
}

#[test]
fn a_message_is_taken_or_rejected_as_a_whole() {
    for (message, code, says) in [
        ("id,n\na,1\nb,x\n", "wrong-type", "record 2: n: found the text \"x\""),
        ("id,n\na,1\nb\n", "not-csv", "record 2: it has 1 fields, and the header has 2"),
        ("id,n\na,1,2\nb,1\n", "not-csv", "record 1: it has 3 fields"),
        ("n,note\n1,x\n", "missing", "record 1: id is missing and NOT NULL"),
        ("id,n\na,1\nNULL,1\n", "missing", "record 2: id is null and NOT NULL"),
        ("id,note\na,\"1\nb,2\n", "not-csv", "record 1: the quotes of its last field are not closed"),
        ("id,\"n\na,1\n", "not-csv", "the header is not UTF-8, or its quotes are not closed"),
        ("id,id\na,b\n", "not-csv", "the header names the field id twice"),
        (
            "a,1,x\nb,2,y\n",
            "not-csv",
            "names none of the table's columns: \"a, 1, x\". If messages have no header, say",
        ),
        ("", "not-csv", "names none of the table's columns"),
    ] {
        let csv = CsvOptions { null: Some("NULL".into()), ..CsvOptions::default() };
        let mut decoder = decoder(orders(), csv, UnknownFields::Ignore);
        decoder.push(b"id\nbefore\n", None).unwrap();
        let reject = decoder.push(message.as_bytes(), None).unwrap_err();
        assert_eq!(reject.code, code, "{message:?}: {}", reject.error);
        assert!(reject.error.contains(says), "{message:?}: {}", reject.error);
        decoder.push(b"id\nafter\n", None).unwrap();
        assert_eq!(ids(&mut decoder), ["before", "after"], "{message:?}");
    }
    let reject = usual().push(b"id,note\na,\xff\n", None).unwrap_err();
    assert_eq!((reject.code, reject.error.as_str()), ("not-csv", "record 1: field 2 is not UTF-8"));
}

#[test]
fn without_a_header_fields_are_the_columns_of_the_table_in_their_order() {
    let declared = ["n", "unread", "id", "note"].map(String::from).to_vec();
    let json = JsonOptions { declared, ..JsonOptions::default() };
    let csv = CsvOptions { delimiter: b';', ..without_header() };
    let decoding = Decoding { format: Format::Csv, csv, json, ..Decoding::default() };
    let mut decoder = Decoder::of(Arc::new(Schema::new(orders())), &decoding, None, Arc::new(|| {})).unwrap();
    assert_eq!(decoder.push(b"1;x;a;\n2;y;b;z", None), Ok(2));
    assert_eq!(decoder.push(b"1;x;a\n", None).unwrap_err().error, "record 1: it has 3 fields, and the table has 4");
    assert_eq!(decoder.push(b"\n", None).unwrap_err().error, "there is no record");
    assert_eq!(ids(&mut decoder), ["a", "b"]);
}

#[test]
fn fields_that_no_column_takes_are_counted_or_refused_as_those_of_other_formats() {
    let mut warned = decoder(orders(), CsvOptions::default(), UnknownFields::Warn);
    warned.push(b"id,tpyo,unread\na,7,1\nb,8,2\n", None).unwrap();
    let observed = warned.observed().unwrap();
    assert_eq!((observed.rows, observed.columns["id"], observed.columns["n"]), (2, 2, 0));
    assert_eq!(observed.unknown.into_iter().collect::<Vec<_>>(), [("tpyo".to_string(), (2, "7".to_string()))]);
    let mut strict = decoder(orders(), CsvOptions::default(), UnknownFields::DeadLetter);
    assert_eq!(strict.push(b"id,unread\na,7\n", None), Ok(1));
    let reject = strict.push(b"id,tpyo\na,7\n", None).unwrap_err();
    assert_eq!((reject.code, reject.error.as_str()), ("unknown-field", "record 1: no column takes the field tpyo"));
}

#[test]
fn a_small_payload_stands_for_no_more_than_a_million_rows() {
    use std::io::Write;
    let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::best());
    gzip.write_all(&b"a,1,\n".repeat(1_000_001)).unwrap();
    let payload = gzip.finish().unwrap();
    let declared = orders().iter().map(|column| column.name().clone()).collect();
    let json = JsonOptions { declared, ..JsonOptions::default() };
    let compression = Compression::Gzip;
    let decoding = Decoding { format: Format::Csv, csv: without_header(), json, compression, ..Decoding::default() };
    let mut decoder = Decoder::of(Arc::new(Schema::new(orders())), &decoding, None, Arc::new(|| {})).unwrap();
    assert_eq!(decoder.push(&payload, None).unwrap_err().code, "too-many-rows");
}

#[test]
fn what_is_written_is_read_as_it_was() {
    let columns = columns();
    let mut random = StdRng::seed_from_u64(7);
    for (delimiter, header) in [(b',', true), (b';', false), (b'\t', true)] {
        let options = CsvOptions { delimiter, header, null: Some("\\N".into()) };
        let writer = CsvWriter::new(&columns, &options);
        let declared = columns.iter().map(|column| column.name().clone()).collect();
        let json = JsonOptions { declared, ..JsonOptions::default() };
        let decoding = Decoding { format: Format::Csv, csv: options, json, ..Decoding::default() };
        let mut decoder =
            Decoder::of(Arc::new(Schema::new(columns.clone())), &decoding, None, Arc::new(|| {})).unwrap();
        let batch = some_rows(&columns, 50, &mut random);
        let rows = writer.rows(&batch).unwrap();
        for (from, to) in [(0, 1), (1, 20), (20, 50)] {
            assert_eq!(decoder.push(&writer.message(rows.between(from, to)), None), Ok(to - from));
        }
        let read = decoder.finish().unwrap();
        for (index, column) in columns.iter().enumerate() {
            let written = match column.data_type() {
                DataType::Binary => empty_is_null(batch.column(index).as_binary()),
                _ => batch.column(index).clone(),
            };
            assert_eq!(read.column(index), &written, "{}", column.name());
        }
    }
}

/// Only text may be empty.
fn empty_is_null(bytes: &BinaryArray) -> ArrayRef {
    Arc::new(bytes.iter().map(|bytes| bytes.filter(|bytes| !bytes.is_empty())).collect::<BinaryArray>())
}

#[test]
fn a_row_of_nothing_is_a_record_too() {
    let columns = Fields::from(vec![Field::new("n", DataType::Int64, true)]);
    let options = CsvOptions::default();
    let writer = CsvWriter::new(&columns, &options);
    let batch = RecordBatch::try_new(
        Arc::new(Schema::new(columns.clone())),
        vec![Arc::new(Int64Array::from(vec![None, Some(1)])) as ArrayRef],
    );
    let message = writer.message(&writer.rows(&batch.unwrap()).unwrap().bytes);
    assert_eq!(String::from_utf8(message.clone()).unwrap(), "n\n\"\"\n1\n");
    let mut decoder = decoder(columns, options, UnknownFields::Ignore);
    assert_eq!(decoder.push(&message, None), Ok(2));
    assert_eq!(decoder.finish().unwrap().column(0).null_count(), 1);
}

/// Records, and between them what CSV is made of, and what it is not.
fn any_text(random: &mut StdRng) -> Vec<u8> {
    const RECORDS: [&[u8]; 4] = [b"a,7,\n", b"\"b\"\"\",,\"c\nd\"\r\n", b"\n", b"e,,f\r"];
    const PARTS: [&[u8]; 8] = [b",", b"\"", b"\n", b"\r", b"7", b"\xff", b"\xef\xbb\xbf", b"\0"];
    let mut some = |of: &[&[u8]], most| -> Vec<u8> {
        (0..random.random_range(0..most)).flat_map(|_| of[random.random_range(0..of.len())].to_vec()).collect()
    };
    [some(&RECORDS, 5), some(&PARTS, 3), some(&RECORDS, 5)].concat()
}

#[test]
fn a_message_of_any_bytes_is_read_as_a_file_of_them_is_or_refused_and_leaves_its_neighbours_alone() {
    let mut random = StdRng::seed_from_u64(11);
    let schema = Arc::new(Schema::new(orders()));
    let declared: Vec<String> = orders().iter().map(|column| column.name().clone()).collect();
    let json = JsonOptions { declared: declared.clone(), ..JsonOptions::default() };
    let decoding = Decoding { format: Format::Csv, csv: without_header(), json, ..Decoding::default() };
    let mut messages = Decoder::of(schema.clone(), &decoding, None, Arc::new(|| {})).unwrap();
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..5_000 {
        let text = [b"x,1,\n".to_vec(), any_text(&mut random)].concat();
        let mut file = CsvDecoder::new(schema.clone(), without_header(), &declared, None).unwrap();
        let (mut rest, mut good) = (&text[..], true);
        while !rest.is_empty() {
            let record = file.take(rest, true, None).expect("nothing follows");
            assert!(record.length > 0);
            good &= !matches!(record.taken, Some(Err(_)));
            rest = &rest[record.length..];
        }
        let of_file = file.finish().unwrap();
        messages.push(b"before,1,", None).unwrap();
        match messages.push(&text, None) {
            Ok(rows) => assert_eq!((rows, good), (of_file.num_rows(), true), "{text:?}"),
            Err(reject) => assert!(!good, "{text:?}: {}", reject.error),
        }
        messages.push(b"after,2,", None).unwrap();
        let read = messages.finish().unwrap();
        let between = read.slice(1, read.num_rows() - 2);
        assert_eq!(between, if good { of_file } else { of_file.slice(0, 0) }, "{text:?}");
        let ends = [0, read.num_rows() - 1].map(|row| read.column(0).as_string::<i32>().value(row).to_string());
        assert_eq!(ends, ["before", "after"], "{text:?}");
        *if good { &mut taken } else { &mut refused } += 1;
    }
    assert!(taken > 1000 && refused > 1000, "{taken} taken, {refused} refused");
}
