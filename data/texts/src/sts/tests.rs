//! Tests of the layouts of scored pairs, of what is left out, and of what is refused.

use super::*;

fn read(name: &str, text: &str) -> Result<Sets> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    Sets::read(&path, Encoding::default(), Invalid::Refuse)
}

fn pairs(set: &Set) -> Vec<(&str, &str, f64)> {
    set.left.iter().zip(&set.right).zip(&set.scores).map(|((l, r), s)| (l.as_str(), r.as_str(), *s)).collect()
}

#[test]
fn every_layout_has_the_same_pairs() {
    let expected = vec![("a \"big\" dog", "a dog, big", 4.5), ("a cat", "a car", 0.0)];
    for (text, noted) in [
        ("sentence1\tsentence2\tscore\na \"big\" dog\ta dog, big\t4.5\na cat\ta car\t0\n", ""),
        ("score\tentailment\tsentence1\tsentence2\n4.5\tY\ta \"big\" dog\ta dog, big\n0\tN\ta cat\ta car\n", ""),
        (
            "pair_ID\tsentence_A\tsentence_B\trelatedness_score\n1\ta \"big\" dog\ta dog, big\t4.5\n2\ta cat\ta car\t0.0\n",
            "the score is `relatedness_score`",
        ),
        ("Sentence 1,Sentence 2,Similarity\n\"a \"\"big\"\" dog\",\"a dog, big\",4.5\na cat,a car,0\n", "`Similarity`"),
        ("sentence1;sentence2;label\r\n\"a \"\"big\"\" dog\";a dog, big;4.5\r\n\r\na cat;a car;0\r\n", "`label`"),
        ("a \"big\" dog\ta dog, big\t4.5\na cat\ta car\t0\n", "the score is the last"),
        ("4.5\ta \"big\" dog\ta dog, big\n0\ta cat\ta car\n", "the score is the first"),
        (
            "main-captions\tMSRvid\t2012test\t0001\t4.5\ta \"big\" dog\ta dog, big\n\
             main-news\theadlines\t2013\t0002\t0.000\ta cat\ta car\tlicence\n",
            "STS-B's",
        ),
        (
            "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n\
             0\tmain\tMSRvid\t2012\t1\tnone\tnone\ta \"big\" dog\ta dog, big\t4.5\n\
             1\tnews\tMSRpar\t2013\t2\tnone\tnone\ta cat\ta car\t0\n",
            "genres of STS-B are one set",
        ),
    ] {
        let found = read("pairs.txt", text).unwrap();
        assert_eq!(found.sets.len(), 1, "{text}");
        assert_eq!((pairs(&found.sets[0]), found.sets[0].name.as_str()), (expected.clone(), "pairs.txt"), "{text}");
        let said = found.notes.join("\n");
        assert!(said.contains(noted) && said.is_empty() == noted.is_empty(), "{text}: {said}");
    }
}

#[test]
fn columns_of_year_set_and_split_tell_sets_apart() {
    let text = "year\tsource\tsplit\tscore\tsentence1\tsentence2\n\
                2012\tMSRpar\ttrain\t1\ta\tb\n2012\tOnWN\ttest\t2\tc\td\n2012\tMSRpar\ttrain\t3\te\tf\n2013\tOnWN\ttest\t4\tg\th\n";
    let found = read("all.tsv", text).unwrap();
    let names: Vec<&str> = found.sets.iter().map(|set| set.name.as_str()).collect();
    assert_eq!(names, ["2012/MSRpar/train", "2012/OnWN/test", "2013/OnWN/test"]);
    assert_eq!(pairs(&found.sets[0]), [("a", "b", 1.0), ("e", "f", 3.0)]);
    assert_eq!((found.sets[1].year.as_deref(), found.sets[1].split.as_deref()), (Some("2012"), Some("test")));
    assert!(found.notes[0].contains("told apart by `year`, `source`, `split`"), "{:?}", found.notes);
    let year = Set::joined("2012", found.sets.iter().filter(|set| set.year.as_deref() == Some("2012")));
    assert_eq!((year.len(), year.scores.as_slice(), year.left[2].as_str()), (3, &[1.0, 3.0, 2.0][..], "c"));
}

#[test]
fn pairs_without_a_score_are_counted_and_what_is_wrong_has_its_line() {
    let head = "sentence1\tsentence2\tscore\n";
    let found = read("p.tsv", &format!("{head}a\tb\t\nc\td\t2\n\te\tNaN\nf\t\t3\n")).unwrap();
    assert_eq!(pairs(&found.sets[0]), [("c", "d", 2.0), ("f", "", 3.0)]);
    assert!(found.notes[0].contains("2 pairs have no score and are left out, the first in line 2"), "{:?}", found.notes);
    assert!(found.notes[1].contains("1 pairs have an empty sentence, the first in line 5"), "{:?}", found.notes);
    let said = |text: &str| read("p.tsv", text).unwrap_err().to_string();
    let short = said(&format!("{head}a\tb\t1\nc\td\n"));
    assert!(short.contains("p.tsv:3") && short.contains("2 columns, not 3"), "{short}");
    let word = said(&format!("{head}a\tb\tsimilar\n"));
    assert!(word.contains("`similar` is not a score") && word.contains("p.tsv:2"), "{word}");
    assert!(said(&format!("{head}a\tb\t\n")).contains("no pair with a score"));
    assert!(said("one line of text\n").contains("no pairs of sentences") && said("").contains("no pairs of sentences"));
    let none = Sets::read(Path::new("no/such/file"), Encoding::default(), Invalid::Refuse).unwrap_err();
    assert_eq!(none.exit_code(), 2);
}

#[test]
fn a_folder_is_all_its_files_of_pairs() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::create_dir(at.join("b")).unwrap();
    std::fs::write(at.join("b/one.tsv"), "a\tb\t1\n").unwrap();
    std::fs::write(at.join("a.csv"), "year,sentence1,sentence2,score\n2014,c,d,2\n2015,e,f,3\n").unwrap();
    std::fs::write(at.join("README.txt"), "about these pairs\n").unwrap();
    std::fs::write(at.join("licence.md"), "free\n").unwrap();
    let mut gzip =
        flate2::write::GzEncoder::new(std::fs::File::create(at.join("c.tsv.gz")).unwrap(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, b"sentence1\tsentence2\tscore\ng\th\t4\n").unwrap();
    gzip.finish().unwrap();
    let found = Sets::read(at, Encoding::default(), Invalid::Refuse).unwrap();
    let names: Vec<&str> = found.sets.iter().map(|set| set.name.as_str()).collect();
    assert_eq!(names, ["a.csv/2014", "a.csv/2015", "b/one.tsv", "c.tsv.gz"]);
    let last = found.notes.last().unwrap();
    assert!(last.contains("2 files") && last.contains("README.txt") && last.contains("licence.md"), "{last}");
    std::fs::create_dir(at.join("none")).unwrap();
    let error = Sets::read(&at.join("none"), Encoding::default(), Invalid::Refuse).unwrap_err();
    assert!(error.to_string().contains("no file of pairs") && error.exit_code() == 2);
}

#[test]
#[cfg_attr(not(ctk_data), ignore = "needs CTK_DATA")]
fn the_sets_of_three_years_and_of_sick_are_read() {
    let data =
        Path::new(&std::env::var("CTK_DATA").expect("CTK_DATA names the folder of real data")).join("text/sentence-similarity");
    let found = Sets::read(&data.join("sts-2012-2014.tsv"), Encoding::default(), Invalid::Refuse).unwrap();
    let year = |year: &str| found.sets.iter().filter(|set| set.year.as_deref() == Some(year)).map(Set::len).sum::<usize>();
    assert_eq!((year("2012"), year("2013"), year("2014")), (3842, 1500, 3750));
    let sick = Sets::read(&data.join("sick2014.tsv"), Encoding::default(), Invalid::Refuse).unwrap();
    let sizes: Vec<(&str, usize)> = sick.sets.iter().map(|set| (set.name.as_str(), set.len())).collect();
    assert_eq!(sizes, [("test", 4927), ("train", 4500), ("trial", 500)]);
    // The folder also has licences.
    let all = Sets::read(&data, Encoding::default(), Invalid::Refuse).unwrap();
    assert_eq!(all.sets.len(), found.sets.len() + 3);
}
