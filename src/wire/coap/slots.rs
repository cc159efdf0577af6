//! A bounded table whose places are named by keys that are not used twice.

/// Names one thing in a [`Slots`]; once that is removed, the key names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    place: u32,
    round: u32,
}

/// At most as many things as it was made for; it grows as they come.
#[derive(Debug)]
pub struct Slots<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
    bound: usize,
}

impl<T> Slots<T> {
    /// A table for at most `bound` things.
    pub fn new(bound: usize) -> Self {
        Self { places: Vec::new(), free: Vec::new(), bound }
    }

    /// How many things it holds.
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts `thing` in; `None` and nothing done when it is full.
    pub fn insert(&mut self, thing: T) -> Option<Key> {
        if let Some(place) = self.free.pop() {
            let slot = self.places.get_mut(place as usize)?;
            slot.1 = Some(thing);
            return Some(Key { place, round: slot.0 });
        }
        if self.places.len() >= self.bound {
            return None;
        }
        self.places.push((0, Some(thing)));
        Some(Key { place: (self.places.len() - 1) as u32, round: 0 })
    }

    /// The thing of that key, to look at.
    pub fn get(&self, key: Key) -> Option<&T> {
        self.places.get(key.place as usize).filter(|slot| slot.0 == key.round)?.1.as_ref()
    }

    /// The thing of that key.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.places.get_mut(key.place as usize).filter(|slot| slot.0 == key.round)?.1.as_mut()
    }

    /// Takes the thing of that key out.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.places.get_mut(key.place as usize).filter(|slot| slot.0 == key.round)?;
        let thing = slot.1.take()?;
        slot.0 = slot.0.wrapping_add(1);
        self.free.push(key.place);
        Some(thing)
    }

    /// All things with their keys.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        self.places
            .iter_mut()
            .enumerate()
            .filter_map(|(place, (round, thing))| Some((Key { place: place as u32, round: *round }, thing.as_mut()?)))
    }

    /// All things with their keys, to look at.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.places
            .iter()
            .enumerate()
            .filter_map(|(place, (round, thing))| Some((Key { place: place as u32, round: *round }, thing.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_a_removed_thing_names_nothing_even_when_the_place_is_used_again() {
        let mut slots = Slots::new(1);
        let a = slots.insert('a').unwrap();
        assert_eq!(slots.insert('b'), None);
        assert_eq!(slots.remove(a), Some('a'));
        let b = slots.insert('b').unwrap();
        assert_eq!(slots.get_mut(a), None);
        assert_eq!(slots.remove(a), None);
        assert_eq!(slots.get_mut(b), Some(&mut 'b'));
        assert_eq!(slots.len(), 1);
    }
}
