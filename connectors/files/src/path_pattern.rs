//! Paths with `{date}` and `{time}` in them, as Stream Analytics writes those of reference data. Both are UTC.
//! <https://learn.microsoft.com/azure/stream-analytics/stream-analytics-use-reference-data>

use chrono::{DateTime, NaiveDate, TimeZone, Utc};
use engine::connector::{OptionKind, OptionSpec, Options, Problem, Purpose};
use regex::Regex;

const DATE: &str = "{date}";
const TIME: &str = "{time}";
/// The formats of a date, and what each is to chrono. The first is the one that holds if nothing is said.
const DATES: [(&str, &str); 6] = [
    ("YYYY/MM/DD", "%Y/%m/%d"),
    ("YYYY-MM-DD", "%Y-%m-%d"),
    ("DD/MM/YYYY", "%d/%m/%Y"),
    ("DD-MM-YYYY", "%d-%m-%Y"),
    ("MM/DD/YYYY", "%m/%d/%Y"),
    ("MM-DD-YYYY", "%m-%d-%Y"),
];
const TIMES: [(&str, &str); 3] = [("HH", "%H"), ("HH/mm", "%H/%M"), ("HH-mm", "%H-%M")];

/// What files are called whose name says when they begin to hold.
pub struct PathPattern {
    /// As the job file writes it.
    pub written: String,
    /// The folder that all of them are in.
    pub fixed: String,
    /// Of a file's name, relative to that folder.
    names: Regex,
    date: &'static str,
    time: &'static str,
}

pub fn options() -> Vec<OptionSpec> {
    let options = [
        OptionSpec::new(
            "path.date-format",
            OptionKind::OneOf(&[
                &["YYYY/MM/DD"],
                &["YYYY-MM-DD"],
                &["DD/MM/YYYY"],
                &["DD-MM-YYYY"],
                &["MM/DD/YYYY"],
                &["MM-DD-YYYY"],
            ]),
            "what {date} in the path of a lookup table looks like (YYYY/MM/DD)",
        ),
        OptionSpec::new(
            "path.time-format",
            OptionKind::OneOf(&[&["HH"], &["HH/mm"], &["HH-mm"]]),
            "what {time} looks like (HH)",
        ),
    ];
    options.map(|option| option.purpose(Purpose::Lookups)).into()
}

impl PathPattern {
    /// `None`: there is neither a date nor a time in the path.
    pub fn of(path: &str, options: &Options) -> Result<Option<PathPattern>, Problem> {
        let Some(at) = path.find('{') else {
            let stray = ["path.date-format", "path.time-format"].into_iter().find(|name| options.get(name).is_some());
            return match stray {
                Some(name) => {
                    Err(Problem::option(name, format!("{name} says nothing: the path has no {DATE} or {TIME}")))
                }
                None => Ok(None),
            };
        };
        let format = |name: &str, all: &[(&'static str, &'static str)]| {
            let said = options.get(name).unwrap_or(all[0].0);
            all.iter().find(|(known, _)| *known == said).map_or(all[0], |found| *found)
        };
        let (date, time) = (format("path.date-format", &DATES), format("path.time-format", &TIMES));
        let folder = path[..at].rfind('/').map_or(0, |slash| slash + 1);
        let names = regex::escape(path[folder..].trim_end_matches('/'));
        let (date_place, time_place) = (regex::escape(DATE), regex::escape(TIME));
        let wrong = |what: String| Problem::option("path", what);
        if names.matches(&date_place).count() != 1 || names.matches(&time_place).count() > 1 {
            return Err(wrong(format!("a path with braces has {DATE} once, and perhaps {TIME} once")));
        }
        let digits = |format: &str| format.replace(|c: char| c.is_ascii_alphabetic(), "[0-9]");
        let names = names.replace(&date_place, &format!("(?<date>{})", digits(date.0)));
        let names = names.replace(&time_place, &format!("(?<time>{})", digits(time.0)));
        if names.contains("\\{") || names.contains("\\}") {
            return Err(wrong(format!("in braces there can be {DATE} and {TIME}, and nothing else")));
        }
        // A pattern that ends with a folder means all files in it.
        let names = Regex::new(&format!("^{names}(?:/.*)?$")).map_err(|e| wrong(e.to_string()))?;
        let fixed = if folder == 0 { "." } else { path[..folder].trim_end_matches('/') };
        let fixed = if fixed.is_empty() { "/" } else { fixed };
        Ok(Some(PathPattern { written: path.into(), fixed: fixed.into(), names, date: date.1, time: time.1 }))
    }

    /// The time that a file's name says, nanoseconds since 1970; `None` if it says none.
    pub fn time_of(&self, name: &str) -> Option<i64> {
        let found = self.names.captures(name)?;
        let date = NaiveDate::parse_from_str(found.name("date")?.as_str(), self.date).ok()?;
        let time = match found.name("time") {
            None => chrono::NaiveTime::MIN,
            Some(time) if self.time == "%H" => chrono::NaiveTime::from_hms_opt(time.as_str().parse().ok()?, 0, 0)?,
            Some(time) => chrono::NaiveTime::parse_from_str(time.as_str(), self.time).ok()?,
        };
        Utc.from_utc_datetime(&date.and_time(time)).timestamp_nanos_opt()
    }

    /// A time so that later ones compare as greater.
    pub fn written(&self, time: i64) -> String {
        DateTime::from_timestamp_nanos(time).format("%Y-%m-%dT%H:%M").to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(path: &str, options: &[(&str, &str)]) -> Result<Option<PathPattern>, String> {
        let options = Options(options.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect());
        PathPattern::of(path, &options).map_err(|problem| problem.message)
    }

    fn time(pattern: &PathPattern, name: &str) -> Option<String> {
        pattern.time_of(name).map(|time| pattern.written(time))
    }

    #[test]
    fn a_name_says_its_date_and_time_in_the_format_of_the_options() {
        let of_days = pattern("az://ref/products/{date}/list.csv", &[]).unwrap().unwrap();
        assert_eq!(of_days.fixed, "az://ref/products");
        assert_eq!(time(&of_days, "2026/11/29/list.csv").unwrap(), "2026-11-29T00:00");
        assert_eq!(time(&of_days, "2026/11/29/other.csv"), None);
        assert_eq!(time(&of_days, "2026/13/29/list.csv"), None, "there is no such month");
        let formats = [("path.date-format", "DD-MM-YYYY"), ("path.time-format", "HH-mm")];
        let of_minutes = pattern("ref/{date}/{time}", &formats).unwrap().unwrap();
        assert_eq!(of_minutes.fixed, "ref");
        assert_eq!(time(&of_minutes, "29-11-2026/17-05/part-0.json").unwrap(), "2026-11-29T17:05");
        let of_hours = pattern("devices-{date}T{time}.json", &[("path.date-format", "YYYY-MM-DD")]).unwrap().unwrap();
        assert_eq!(of_hours.fixed, ".");
        assert_eq!(time(&of_hours, "devices-2026-11-29T09.json").unwrap(), "2026-11-29T09:00");
    }

    #[test]
    fn what_is_no_pattern_is_said() {
        assert!(pattern("ref/devices.csv", &[]).unwrap().is_none());
        assert!(pattern("ref/{time}.csv", &[]).err().unwrap().contains("{date} once"));
        assert!(pattern("ref/{date}/{region}.csv", &[]).err().unwrap().contains("nothing else"));
        assert!(pattern("ref/x.csv", &[("path.time-format", "HH")]).err().unwrap().contains("no {date}"));
    }
}
