//! Finds the rows that a statement fails for, when it fails for all of them together. Rows are tried, and taken back, until each that
//! cannot be is known by itself; so one bad row keeps none of its neighbours out.

use std::ops::RangeInclusive;

use crate::connection::Connection;
use crate::options::Write;
use crate::statements::{Marker, NO_ROWS};
use crate::target::Target;
use crate::trouble::Trouble;

/// No more are found in one go: what is found is recorded, and the rest comes again.
const MOST: usize = 1000;
/// As many are looked for in one go of those that are wrong beside others only: that takes a try of all rows for each.
const AT_ONCE: usize = 20;

/// A batch that failed for its rows, perhaps.
pub struct Judge<'a> {
    pub connection: &'a mut Connection,
    pub marker: Marker<'a>,
    pub target: &'a Target,
    pub write: Write,
}

/// A row by its number, and what the server says of it.
pub type Guilty = (usize, String);

impl Judge<'_> {
    /// The rows, of so many, that can never be; none if they can be now.
    pub async fn find(&mut self, rows: usize) -> Result<Vec<Guilty>, Trouble> {
        // What fails without any row is nobody's fault here.
        if let Some(what) = self.attempt(NO_ROWS, &[]).await? {
            return Err(Trouble::Stopped(what));
        }
        if rows == 0 {
            return Ok(vec![]);
        }
        let alone = self.by_themselves(rows).await?;
        if alone.is_empty() {
            return self.beside_others(rows).await;
        }
        // What has passed since convicts nobody.
        let mut convicted = vec![];
        for (row, _) in alone {
            convicted.extend(self.attempt(row..=row, &[]).await?.map(|what| (row, what)));
        }
        match self.attempt(NO_ROWS, &[]).await? {
            Some(what) => Err(Trouble::Stopped(what)),
            None => Ok(convicted),
        }
    }

    /// Those that cannot be, whatever other rows there are: by halves.
    async fn by_themselves(&mut self, rows: usize) -> Result<Vec<Guilty>, Trouble> {
        let (mut found, mut left) = (vec![], halves(0..=rows - 1));
        while let Some(part) = left.pop().filter(|_| found.len() < MOST) {
            let Some(what) = self.attempt(part.clone(), &[]).await? else { continue };
            match part.start() == part.end() {
                true => found.push((*part.start(), what)),
                false => left.extend(halves(part)),
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Those that cannot be after the rows before them: the end of the shortest beginning that fails, again and again.
    async fn beside_others(&mut self, rows: usize) -> Result<Vec<Guilty>, Trouble> {
        let (mut found, mut without) = (Vec::<Guilty>::new(), vec![]);
        while found.len() < AT_ONCE {
            let Some(mut what) = self.attempt(0..=rows - 1, &without).await? else { break };
            let (mut good, mut bad) = (0, rows - 1);
            while good < bad {
                let middle = good + (bad - good) / 2;
                match self.attempt(0..=middle, &without).await? {
                    Some(said) => (bad, what) = (middle, said),
                    None => good = middle + 1,
                }
            }
            without.push(bad);
            found.push((bad, what));
        }
        Ok(found)
    }

    /// Why these rows cannot be, if they cannot.
    async fn attempt(&mut self, rows: RangeInclusive<usize>, without: &[usize]) -> Result<Option<String>, Trouble> {
        match self.connection.run(self.marker.attempt(self.target, self.write, rows, without)).await {
            Ok(_) => Ok(None),
            Err(Trouble::Statement(what)) => Ok(Some(what)),
            Err(other) => Err(other),
        }
    }
}

fn halves(part: RangeInclusive<usize>) -> Vec<RangeInclusive<usize>> {
    let (start, end) = part.into_inner();
    if start == end {
        return vec![start..=end];
    }
    let middle = start + (end - start) / 2;
    vec![middle + 1..=end, start..=middle]
}
