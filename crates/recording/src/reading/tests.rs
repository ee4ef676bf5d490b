use super::*;
use crate::format::Ending;
use crate::quiet::Cut;
use crate::testing::{Scene, header};
use crate::writer::{Look, Writer};
use proptest::prelude::*;

fn parse(text: &str) -> Result<Recording, String> {
    Recording::parse("burst.rec", text.as_bytes()).map_err(|error| error.to_string())
}

fn header_line() -> String {
    format!("{}\n", serde_json::to_string(&header(16)).unwrap())
}

#[test]
fn what_was_looked_at_is_read_back() {
    let mut file = Vec::new();
    let first = Look { limit: 16, drops: u32::MAX, passive_opens: 7, ..Look::default() };
    let mut writer = Writer::begin(&mut file, 10_000, &header(16), first).unwrap();
    let second =
        Look { at: 3000, passive_opens: 10, depth: 3, drops: 1, listen_drops: 2, cookies: 1, resets: 5, ..first };
    for look in [Look { at: 1000, ..first }, Look { at: 2000, ..first }, second, Look { at: 4000, limit: 4, ..second }]
    {
        assert!(writer.look(look).unwrap());
    }
    let written = writer.end(Ending::Time, 5000, 4, 1, 99).unwrap();
    let lines = String::from_utf8(file.clone()).unwrap();
    let after: Vec<&str> = lines.lines().skip(1).collect();
    assert_eq!(after[0], "[3000,1000,3,3,2,2,1,5,0]", "unchanged looks are no line, and drops wrap");
    assert_eq!(after[1], r#"{"limit":4,"since-us":1000}"#);
    assert_eq!(after[2], r#"{"end":"time","since-us":1000,"looks":4,"late":1,"cpu-us":99}"#);
    assert_eq!((written.lines, written.bytes), (4, file.len() as u64));
    let read = Recording::parse("x", &file).unwrap();
    assert_eq!((read.lasts, read.limits.as_slice()), (5000, &[(4000, 4)][..]));
    assert_eq!((read.entered(), read.dropped(), read.deepest()), (3, 2, 3));
    assert_eq!(read.samples[0].began(), 2000);
    assert_eq!(read.sysctl("net.core.somaxconn"), Some(4096));
}

#[test]
fn a_recording_stays_below_its_bound_and_says_so() {
    let mut file = Vec::new();
    let limit = 1500;
    let mut writer = Writer::begin(&mut file, limit, &header(16), Look::default()).unwrap();
    let mut looks = 0;
    while writer.look(Look { at: looks * 1000, passive_opens: looks, limit: 16, ..Look::default() }).unwrap() {
        looks += 1;
        assert!(looks < 1000);
    }
    writer.end(Ending::Size, looks * 1000, looks, 0, u64::MAX).unwrap();
    assert!(file.len() as u64 <= limit && file.len() as u64 > limit - 200, "{} bytes", file.len());
    assert_eq!(Recording::parse("x", &file).unwrap().end.unwrap().end, Ending::Size);
}

#[test]
fn what_is_no_recording_is_named_with_its_line() {
    let head = header_line();
    for (text, says) in [
        (String::new(), "burst.rec:1: the file is empty"),
        ("[experiment]\n".to_owned(), "burst.rec:1: no header of a recording"),
        (head.replace("recording\":1", "recording\":2"), "burst.rec:1: a recording of version 2"),
        (format!("{head}[1,1,0,1,0,0,0,0,0]\nnonsense\n"), "burst.rec:3: `nonsense` is no line"),
        (format!("{head}[1,2,0,1,0,0,0,0,0]\n"), "burst.rec:2: the column `over`"),
        (format!("{head}[9,1,0,1,0,0,0,0,0]\n[1,5,0,2,0,0,0,0,0]\n"), "burst.rec:3: the column `over`"),
        (format!("{head}[1,1,0,4294967296,0,0,0,0,0]\n"), "burst.rec:2: the column `depth`"),
        (format!("{head}[1,1,0,1,0,0,0,0]\n"), "burst.rec:2: `[1,1,0,1,0,0,0,0]` is no line"),
        (format!("{head}{{\"limit\":4}}\n"), "burst.rec:2: "),
        (
            format!(
                "{head}{{\"end\":\"stopped\",\"since-us\":1,\"looks\":1,\"late\":0,\"cpu-us\":0}}\n[1,1,0,1,0,0,0,0,0]\n"
            ),
            "burst.rec:3: something follows",
        ),
    ] {
        let error = parse(&text).expect_err(&text);
        assert!(error.starts_with(says) && !error.contains('\n'), "{error}");
    }
}

#[test]
fn a_recording_that_was_cut_off_is_what_was_written_whole() {
    let text = format!("{}[1000,1000,1,1,0,0,0,0,0]\n[1000,10", header_line());
    let recording = parse(&text).unwrap();
    assert_eq!((recording.samples.len(), recording.end), (1, None));
}

#[test]
fn a_part_is_what_was_between_two_instants() {
    let text = format!(
        "{}[1000,1000,5,5,0,0,0,0,0]\n{{\"limit\":8,\"since-us\":500}}\n[1500,1000,2,4,1,1,0,0,0]\n[1000,1000,9,9,0,0,0,0,0]\n\
         {{\"end\":\"size\",\"since-us\":1000,\"looks\":4,\"late\":0,\"cpu-us\":0}}\n",
        header_line()
    );
    let whole = parse(&text).unwrap();
    assert_eq!((whole.lasts, whole.deepest_at()), (5000, 4000));
    assert_eq!(whole.part(0, u64::MAX), whole);
    let part = whole.part(2000, 3000);
    assert_eq!((part.header.depth, part.header.limit, part.lasts), (5, 8, 1000));
    assert_eq!(
        part.samples,
        [Sample { at: 1000, over: 1000, entered: 2, depth: 4, dropped: 1, listen_drops: 1, ..Sample::default() }]
    );
    assert_eq!(part.header.started.to_string(), "2026-01-31T12:00:00.002Z");
    assert_eq!((part.end.unwrap().end, whole.part(2000, 9000).end.unwrap().end), (Ending::Stopped, Ending::Size));
    assert_eq!(whole.part(1000, 2000).limits, [(500, 8)]);
    assert_eq!(whole.part(9000, 9999).samples, []);
}

#[test]
fn quiet_stretches_are_cut_to_the_gap() {
    // At 0.1 s, 1.1 s and 2.9 s, served within 50 ms.
    let arrivals = [100_500, 1_100_500, 2_900_500].into_iter().flat_map(|at| [at; 10]).collect();
    let (recording, _) = Scene { arrivals, service_us: 4_000, ..Scene::default() }.record();
    let cut = Cut::new(&recording, 500_000);
    assert_eq!(cut.shorten(100_000), 100_000, "quiet for less");
    assert_eq!(cut.shorten(2_900_000), 2_900_000 - cut.left_out());
    // The tenth of each burst is accepted 36 ms after the first.
    assert_eq!(cut.left_out(), (1_100_000 - 137_000 - 500_000) + (2_900_000 - 1_137_000 - 500_000));
    assert_eq!(Cut::new(&recording, u64::MAX).left_out(), 0);
}

proptest! {
    #[test]
    fn whatever_is_read_can_be_asked_what_it_means(
        lines in proptest::collection::vec((any::<u32>(), 0..9_u32, any::<u32>(), any::<u32>(), any::<u32>()), 0..9),
        patience_us: u64, gap: u64,
    ) {
        let line = |(since, over, entered, depth, dropped): (u32, u32, u32, u32, u32)| {
            format!("[{since},{},{entered},{depth},{dropped},{entered},0,{over},0]\n", over.min(since))
        };
        let text = [vec![header_line()], lines.into_iter().map(line).collect()].concat().concat();
        let recording = parse(&text).unwrap();
        let arrivals = crate::Arrivals::of(&recording, crate::arrivals::Clients { patience_us, linear_timeouts: 4 });
        prop_assert!(arrivals.attempts >= arrivals.entered.saturating_sub(arrivals.retries));
        let _ = (crate::Service::of(&recording), Cut::new(&recording, gap).left_out(), arrivals.most_per_ms());
    }

    #[test]
    fn reading_never_panics(bytes: Vec<u8>, lines in proptest::collection::vec("[\\[\\],0-9a-z{}:\"]{0,30}", 0..5)) {
        let _ = Recording::parse("x", &bytes);
        let _ = Recording::parse("x", format!("{}{}\n", header_line(), lines.join("\n")).as_bytes());
    }
}
