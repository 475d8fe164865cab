//! Checks that a JPEG's scans are complete: reads and counts their codes without making an image.
//!
//! Follows the standard (ITU-T T.81, annexes F and G). Decoders fill gaps without reporting them, so this check is separate.

use ctk_core::{Error, Result};

use super::super::broken;
use super::early;
use super::frame::{Segment, segments};

/// Checks that all scans are complete.
///
/// # Errors
/// The data end before a scan's last block, or contain a code that is not in its table.
pub(super) fn whole(bytes: &[u8]) -> Result<()> {
    let mut file = File::default();
    let mut at = 2;
    loop {
        let Segment { code, at: from, body } = segments(bytes, at).next().ok_or_else(early)?;
        at = from + 4 + body.len();
        match code {
            0xC0..=0xC2 => file.frame(code, body)?,
            0xC4 => file.tables(body)?,
            0xDD => file.restart = body.first_chunk::<2>().map_or(0, |of| usize::from(u16::from_be_bytes(*of))),
            0xDA => at += file.scan(body, &bytes[at..])?,
            0xD9 => break,
            _ => {}
        }
    }
    // A component that no scan holds is missing.
    if file.components.is_empty() || file.components.iter().any(|component| !component.seen) { Err(early()) } else { Ok(()) }
}

#[derive(Default)]
struct File {
    progressive: bool,
    components: Vec<Component>,
    /// By class and place.
    tables: [[Option<Table>; 4]; 2],
    /// Number of units between restart markers; 0 if there are none.
    restart: usize,
    /// The largest sampling factors.
    most: [usize; 2],
    size: [usize; 2],
}

struct Component {
    id: u8,
    /// Sampling factors, horizontal and vertical.
    factors: [usize; 2],
    /// Number of blocks, horizontal and vertical: in a scan of its own, and including padding.
    alone: [usize; 2],
    padded: [usize; 2],
    /// Which coefficients of a block are not zero, one bit each.
    nonzero: Vec<u64>,
    seen: bool,
}

/// The codes by their length: the number of codes, and their values in order.
struct Table {
    counts: [u8; 16],
    values: Vec<u8>,
    /// Length and value of the code at the start of each 8-bit pattern; length 0 if the code is longer.
    short: [(u8, u8); 256],
}

impl Table {
    fn new(counts: [u8; 16], values: Vec<u8>) -> Table {
        let mut table = Table { counts, values, short: [(0, 0); 256] };
        for bits in 0..256 {
            table.short[bits as usize] = table.longest(bits << 8).filter(|(length, _)| *length <= 8).unwrap_or_default();
        }
        table
    }

    /// Length and value of the code at the start of these sixteen bits.
    fn longest(&self, bits: u32) -> Option<(u8, u8)> {
        let (mut first, mut index) = (0, 0);
        for (length, &count) in (1..).zip(&self.counts) {
            let (code, count) = (bits >> (16 - length), u32::from(count));
            if code.wrapping_sub(first) < count {
                return Some((length as u8, *self.values.get((index + code - first) as usize)?));
            }
            index += count;
            first = (first + count) << 1;
        }
        None
    }
}

impl File {
    fn frame(&mut self, code: u8, body: &[u8]) -> Result<()> {
        let [_, h1, h0, w1, w0, _, components @ ..] = body else { return Err(early()) };
        self.progressive = code == 0xC2;
        self.size = [[*w1, *w0], [*h1, *h0]].map(|of| usize::from(u16::from_be_bytes(of)));
        let all: Vec<(u8, [usize; 2])> =
            components.as_chunks::<3>().0.iter().map(|&[id, f, _]| (id, [usize::from(f >> 4), usize::from(f & 15)])).collect();
        self.most = [0, 1].map(|axis| all.iter().map(|(_, factors)| factors[axis]).max().unwrap_or(1).max(1));
        let of = |(id, factors): (u8, [usize; 2])| {
            let axis = |k: usize| (self.size[k] * factors[k]).div_ceil(self.most[k] * 8);
            let padded = [0, 1].map(|k: usize| self.size[k].div_ceil(self.most[k] * 8) * factors[k]);
            let nonzero = vec![0; if code == 0xC2 { padded[0] * padded[1] } else { 0 }];
            Component { id, factors, alone: [axis(0), axis(1)], padded, nonzero, seen: false }
        };
        self.components = all.into_iter().map(of).collect();
        Ok(())
    }

    fn tables(&mut self, mut body: &[u8]) -> Result<()> {
        while let [place, rest @ ..] = body {
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or_else(early)?;
            let length = counts.iter().map(|&count| usize::from(count)).sum();
            let values = rest.get(..length).ok_or_else(early)?.to_vec();
            let table = self.tables.get_mut(usize::from(place >> 4)).and_then(|class| class.get_mut(usize::from(place & 15)));
            *table.ok_or_else(|| broken("a table of its codes has no place"))? = Some(Table::new(*counts, values));
            body = &rest[length..];
        }
        Ok(())
    }

    /// Reads a scan whose data begin at `data`; returns the number of bytes.
    fn scan(&mut self, header: &[u8], data: &[u8]) -> Result<usize> {
        let [count, header @ ..] = header else { return Err(early()) };
        let chosen = header.get(..2 * usize::from(*count)).ok_or_else(early)?;
        let [start, end, approximation, ..] = header[chosen.len()..] else { return Err(early()) };
        let band = Band { start: start.into(), end: usize::from(end).min(63), first: approximation >> 4 == 0 };
        let mut parts = Vec::new();
        for [id, tables] in chosen.as_chunks::<2>().0 {
            let number = self.components.iter().position(|component| component.id == *id);
            let number = number.ok_or_else(|| broken("a scan holds a component that the frame has not"))?;
            self.components[number].seen = true;
            parts.push((number, usize::from(tables >> 4).min(3), usize::from(tables & 15).min(3)));
        }
        let units = match parts[..] {
            [(number, ..)] => self.components[number].alone,
            _ => [0, 1].map(|k| self.size[k].div_ceil(self.most[k] * 8)),
        };
        let mut bits = Bits { data, ..Bits::default() };
        let mut skip = 0;
        for unit in 0..units[0] * units[1] {
            if self.restart > 0 && unit > 0 && unit % self.restart == 0 {
                bits.restart()?;
                skip = 0;
            }
            let (x, y) = (unit % units[0], unit / units[0]);
            for &(number, dc, ac) in &parts {
                let component = &mut self.components[number];
                let tables = Tables { dc: self.tables[0][dc].as_ref(), ac: self.tables[1][ac].as_ref() };
                let [across, down] = if parts.len() == 1 { [1, 1] } else { component.factors };
                for place in 0..across * down {
                    let (bx, by) = (x * across + place % across, y * down + place / across);
                    if self.progressive {
                        let block = component.nonzero.get_mut(by * component.padded[0] + bx).ok_or_else(early)?;
                        tables.part(&mut bits, &band, block, &mut skip)?;
                    } else {
                        tables.block(&mut bits)?;
                    }
                }
            }
        }
        Ok(bits.at)
    }
}

/// The coefficients of a scan, and whether it is the first with these.
struct Band {
    start: usize,
    end: usize,
    first: bool,
}

struct Tables<'a> {
    dc: Option<&'a Table>,
    ac: Option<&'a Table>,
}

impl Tables<'_> {
    /// Reads a block of a sequential scan.
    fn block(&self, bits: &mut Bits) -> Result<()> {
        let length = bits.code(self.dc)?;
        bits.take(length)?;
        let mut k = 1;
        while k < 64 {
            let code = bits.code(self.ac)?;
            match (code >> 4, code & 15) {
                (15, 0) => k += 16,
                (_, 0) => break,
                (run, length) => {
                    k += usize::from(run) + 1;
                    bits.take(length)?;
                }
            }
        }
        Ok(())
    }

    /// Reads a block of a progressive scan; the next `skip` blocks have nothing more in this band.
    fn part(&self, bits: &mut Bits, band: &Band, block: &mut u64, skip: &mut u32) -> Result<()> {
        if band.start == 0 {
            let length = if band.first { bits.code(self.dc)? } else { 1 };
            return bits.take(length).map(|_| ());
        }
        let mut k = band.start;
        if *skip == 0 {
            while k <= band.end {
                let code = bits.code(self.ac)?;
                let (mut run, size) = (code >> 4, code & 15);
                if size == 0 && run < 15 {
                    *skip = (1 << run) + bits.take(run)?;
                    break;
                }
                if size > 0 {
                    bits.take(if band.first { size } else { 1 })?;
                }
                if band.first {
                    k += usize::from(run);
                } else {
                    // Coefficients that are not zero are refined on the way, and are not part of the run.
                    while k <= band.end && (*block >> k & 1 == 1 || run > 0) {
                        if *block >> k & 1 == 1 {
                            bits.take(1)?;
                        } else {
                            run -= 1;
                        }
                        k += 1;
                    }
                }
                if size > 0 && k <= band.end {
                    *block |= 1 << k;
                }
                k += 1;
            }
        }
        if *skip > 0 {
            *skip -= 1;
            if !band.first {
                let rest = if k <= band.end { (*block >> k << k) & (u64::MAX >> (63 - band.end)) } else { 0 };
                (0..rest.count_ones()).try_for_each(|_| bits.take(1).map(|_| ()))?;
            }
        }
        Ok(())
    }
}

fn meaningless() -> Error {
    Error::new("this JPEG is damaged: a code in it means nothing").hint(super::BROKEN)
}

/// The bits of entropy-coded data.
#[derive(Default)]
struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    held: u64,
    count: u32,
}

impl Bits<'_> {
    /// Reads bytes up to a marker.
    fn fill(&mut self) {
        while self.count <= 48 {
            match self.data.get(self.at) {
                None => return,
                Some(0xFF) if self.data.get(self.at + 1) != Some(&0) => return,
                Some(&byte) => {
                    self.at += if byte == 0xFF { 2 } else { 1 };
                    self.held = self.held << 8 | u64::from(byte);
                    self.count += 8;
                }
            }
        }
    }

    /// The next `count` bits.
    fn take(&mut self, count: u8) -> Result<u32> {
        let count = u32::from(count);
        if count > 16 {
            return Err(meaningless());
        }
        if self.count < count {
            self.fill();
        }
        self.count = self.count.checked_sub(count).ok_or_else(early)?;
        Ok((self.held >> self.count) as u32 & ((1 << count) - 1))
    }

    /// The value of the next code.
    fn code(&mut self, table: Option<&Table>) -> Result<u8> {
        let table = table.ok_or_else(|| broken("a table of its codes is missing"))?;
        if self.count < 16 {
            self.fill();
        }
        // After the end all bits are ones.
        let behind = 16_u32.saturating_sub(self.count);
        let bits = ((self.held << behind | ((1 << behind) - 1)) >> (self.count + behind - 16)) as u32 & 0xFFFF;
        let (length, value) = match table.short[(bits >> 8) as usize] {
            (0, _) => table.longest(bits).ok_or_else(if behind > 0 { early } else { meaningless })?,
            found => found,
        };
        self.count = self.count.checked_sub(length.into()).ok_or_else(early)?;
        Ok(value)
    }

    /// Moves to the next restart marker, skipping stray bytes.
    fn restart(&mut self) -> Result<()> {
        // Whole bytes that were read ahead are stray bytes, not a marker.
        self.count = 0;
        loop {
            match *self.data.get(self.at..self.at + 2).ok_or_else(early)? {
                [0xFF, 0xD0..=0xD7] => {
                    self.at += 2;
                    return Ok(());
                }
                [0xFF, 0x01..=0xFE] => return Err(early()),
                _ => self.at += 1,
            }
        }
    }
}
