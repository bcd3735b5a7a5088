use super::*;

fn contents(queue: &SendQueue) -> Vec<u8> {
    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
    let filled = queue.slices(&mut slices);
    slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect()
}

#[test]
fn small_writes_share_a_chunk_and_large_ones_have_their_own() {
    let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
    queue.push(b"one", &pool);
    queue.push(b"two", &pool);
    assert!(queue.is_single());
    queue.push(&vec![7; CHUNK], &pool);
    assert!(!queue.is_single());
    assert_eq!(queue.len(), 6 + CHUNK);
    assert_eq!(&contents(&queue)[..7], b"onetwo\x07");
}

/// The first chunk takes bytes as long as it is here, has room for all of them, and has none
/// behind it.
#[test]
fn the_first_chunk_takes_what_fits() {
    let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
    assert!(queue.push_first(b"", &pool) && queue.is_empty());
    assert!(queue.push_first(b"one", &pool) && queue.push_first(b"two", &pool) && queue.push_first(b"", &pool));
    let in_flight = queue.lend().unwrap();
    assert!(!queue.push_first(b"lent", &pool));
    queue.take_back(in_flight, 1, &pool);
    assert!(!queue.push_first(&[7; CHUNK - 5], &pool));
    assert!(queue.push_first(&[7; CHUNK - 6], &pool) && queue.is_single());
    queue.push(b"behind", &pool);
    queue.advance(CHUNK - 2, &pool);
    assert!(!queue.push_first(b"x", &pool));
    assert_eq!(contents(&queue), b"\x07behind");
}

/// For all sizes of writes and sends, the bytes come out in order, and an emptied queue owns
/// nothing.
#[test]
fn bytes_come_out_as_they_went_in() {
    let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
    let (mut written, mut sent) = (Vec::new(), Vec::new());
    for round in 0..400_usize {
        let data: Vec<u8> = (0..(round * 7919) % 9000).map(|i| (i * 31 + round) as u8).collect();
        queue.push(&data, &pool);
        written.extend_from_slice(&data);
        let all = contents(&queue);
        let count = all.len().min((round * 104_729) % 12_000);
        sent.extend_from_slice(&all[..count]);
        queue.advance(count, &pool);
    }
    while !queue.is_empty() {
        let all = contents(&queue);
        sent.extend_from_slice(&all);
        queue.advance(all.len(), &pool);
    }
    assert!(sent == written);
    assert!(queue.0.is_none());
}

#[test]
fn an_emptied_buffer_is_used_again() {
    let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
    queue.push(b"hello", &pool);
    let address = queue.front().as_ptr();
    queue.advance(5, &pool);
    queue.push(b"again", &pool);
    assert_eq!(queue.front().as_ptr(), address);
}

/// A server that reads and answers keeps a buffer for each: one that is asked for is not taken
/// out of kept chunks, unless the pool is nearly full.
#[test]
fn chunks_stay_whole_while_there_is_room() {
    let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
    queue.push(b"answer", &pool);
    let address = queue.front().as_ptr();
    queue.advance(6, &pool);
    let mut read = pool.take();
    assert_eq!(read.capacity(), 0);
    read.extend_from_slice(b"request");
    let read_at = read.as_ptr();
    pool.give(read);
    queue.push(b"answer", &pool);
    let read = pool.take();
    assert_eq!((queue.front().as_ptr(), read.as_ptr()), (address, read_at));
}

/// The kept capacity is bounded, for any number of connections that answer at once.
#[test]
fn the_buffers_that_are_kept_are_bounded() {
    let pool = BufferPool::default();
    let mut queues: Vec<_> = (0..200).map(|_| SendQueue::default()).collect();
    for queue in &mut queues {
        queue.push(&vec![1; CHUNK], &pool);
    }
    for queue in &mut queues {
        queue.advance(CHUNK, &pool);
    }
    assert_eq!(pool.0.borrow().bytes, 2 * 1024 * 1024);
    drop(pool.take());
    assert_eq!(pool.0.borrow().bytes, 2 * 1024 * 1024 - CHUNK);
    for queue in &mut queues {
        queue.push(b"one each", &pool);
    }
    assert_eq!(pool.0.borrow().bytes, 0);
}

/// Lent bytes count, writes meanwhile go behind them, and unsent bytes of the chunk are in
/// front again.
#[test]
fn a_loan_comes_back_to_where_it_was() {
    let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
    assert!(queue.lend().is_none());
    queue.push(b"0123456789", &pool);
    queue.advance(2, &pool);
    let in_flight = queue.lend().unwrap();
    assert_eq!((in_flight.bytes(), queue.len(), queue.front()), (&b"23456789"[..], 8, &b""[..]));
    assert!(queue.lend().is_none() && !queue.is_empty());
    queue.push(b"ab", &pool);
    queue.push(b"cd", &pool);
    assert_eq!(queue.len(), 12);
    queue.take_back(in_flight, 3, &pool);
    assert_eq!(contents(&queue), b"56789abcd");
    let in_flight = queue.lend().unwrap();
    queue.take_back(in_flight, 5, &pool);
    assert_eq!(contents(&queue), b"abcd");
    let in_flight = queue.lend().unwrap();
    queue.clear();
    queue.take_back(in_flight, 0, &pool);
    assert!(queue.is_empty());
}

/// A chunk in flight with nothing behind it comes back as well, and its buffer goes to the pool
/// when all of it was sent.
#[test]
fn a_loan_without_more_comes_back() {
    let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
    queue.push(b"0123456789", &pool);
    let in_flight = queue.lend().unwrap();
    let address = in_flight.bytes().as_ptr();
    queue.take_back(in_flight, 4, &pool);
    assert_eq!(contents(&queue), b"456789");
    let in_flight = queue.lend().unwrap();
    queue.take_back(in_flight, 6, &pool);
    assert!(queue.is_empty());
    queue.push(b"taken along", &pool);
    assert_eq!(queue.front().as_ptr(), address);
    assert_eq!(queue.lend().unwrap().into_buffer(), b"taken along");
}

/// An appended buffer becomes a chunk of its own if it is large enough. Otherwise it is copied,
/// and kept for other writes.
#[test]
fn appended_buffers_are_chunks_or_copied() {
    const WORTH: usize = 16 * 1024;
    let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
    queue.append(Vec::with_capacity(10), &pool);
    assert!(queue.is_empty());
    let first = b"first".to_vec();
    let address = first.as_ptr();
    queue.append(first, &pool);
    assert_eq!((queue.front(), queue.front().as_ptr(), queue.len()), (&b"first"[..], address, 5));
    drop((pool.take(), pool.take()));
    queue.append(vec![1; WORTH - 1], &pool);
    assert!(queue.is_single() && pool.take().capacity() == WORTH - 1);
    queue.append(vec![2; WORTH], &pool);
    assert!(!queue.is_single() && pool.take().capacity() == 0);
    queue.append(vec![3; WORTH], &pool);
    assert_eq!(queue.len(), 5 + WORTH - 1 + 2 * WORTH);
    let expected = [&b"first"[..], &[1; WORTH - 1], &[2; WORTH], &[3; WORTH]].concat();
    assert!(contents(&queue) == expected);
}

/// A small write behind a chunk in flight takes a kept buffer; one behind a full chunk begins
/// another chunk.
#[test]
fn writes_behind_a_chunk_take_the_room_that_they_need() {
    let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
    queue.push(b"lent", &pool);
    let in_flight = queue.lend().unwrap();
    pool.give(Vec::with_capacity(100));
    queue.push(b"behind", &pool);
    assert_eq!(pool.take().capacity(), 0, "the kept buffer is in use");
    queue.take_back(in_flight, 4, &pool);
    assert_eq!(contents(&queue), b"behind");

    let mut queue = SendQueue::default();
    queue.push(&vec![1; CHUNK], &pool);
    pool.give(Vec::with_capacity(100));
    queue.push(b"behind", &pool);
    let Some(Chunk::Copied(behind)) = queue.0.as_ref().and_then(|chunks| chunks.more.front()) else {
        panic!("there is a chunk behind the full one");
    };
    assert_eq!(behind.capacity(), CHUNK);
}

/// Bytes that are written into the queue arrive in order, in the place of the first chunk or
/// behind others. Nothing is added by a failure, whose buffer is kept and empty.
#[test]
fn bytes_are_written_in_place() {
    let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
    let write = |queue: &mut SendQueue, bytes: &[u8], result: Result<(), u8>| {
        queue.append_with(&pool, |buffer| {
            assert!(buffer.is_empty());
            buffer.extend_from_slice(bytes);
            result
        })
    };
    assert_eq!(write(&mut queue, b"lost", Err(1)), Err(1));
    assert!(queue.is_empty());
    assert_eq!(write(&mut queue, b"", Ok(())), Ok(()));
    assert!(queue.is_empty());
    assert_eq!(write(&mut queue, b"first", Ok(())), Ok(()));
    assert_eq!(write(&mut queue, b"lost", Err(2)), Err(2));
    assert_eq!(write(&mut queue, b", second", Ok(())), Ok(()));
    assert_eq!((contents(&queue), queue.is_single()), (b"first, second".to_vec(), true));
    assert_eq!(write(&mut queue, &[3; CHUNK], Ok(())), Ok(()));
    assert_eq!((queue.len(), queue.is_single()), (13 + CHUNK, false));
    queue.advance(13, &pool);
    assert!(queue.front() == [3; CHUNK]);
    queue.advance(CHUNK, &pool);
    assert!(queue.is_empty());
}

#[test]
fn a_buffer_without_room_is_not_kept() {
    let pool = BufferPool::default();
    pool.give(Vec::new());
    assert!(pool.0.borrow().buffers.is_empty());
}

#[test]
fn a_buffer_grown_past_a_chunk_is_not_kept() {
    let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
    queue.push(&vec![1; CHUNK + 1], &pool);
    queue.advance(CHUNK + 1, &pool);
    assert!(pool.0.borrow().buffers.is_empty());
}

/// Shared bytes that differ from place to place.
fn shared(length: usize) -> Bytes {
    (0..length).map(|at| (at % 251) as u8).collect::<Vec<u8>>().into()
}

/// Shared bytes are a chunk of their own, at the same address, and are dropped when they have left.
/// Few bytes are copied.
#[test]
fn shared_bytes_are_kept_by_reference() {
    let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
    let bytes = shared(SHARED_BYTES);
    queue.push_shared(bytes.slice(1..), &pool);
    assert!(queue.is_single() && queue.front().as_ptr() != bytes[1..].as_ptr(), "few bytes are copied");
    queue.advance(SHARED_BYTES - 1, &pool);
    queue.push_shared(bytes.clone(), &pool);
    assert!(!queue.is_single() && !queue.is_empty() && queue.single().is_empty());
    assert_eq!((queue.front().as_ptr(), queue.len()), (bytes.as_ptr(), SHARED_BYTES));
    queue.push(b"behind", &pool);
    queue.advance(100, &pool);
    assert_eq!((queue.front(), queue.len()), (&bytes[100..], SHARED_BYTES - 100 + 6));
    assert!(!bytes.is_unique());
    queue.advance(SHARED_BYTES - 100, &pool);
    assert!(bytes.is_unique() && queue.is_single(), "the reference was kept");
    assert_eq!(contents(&queue), b"behind");
    queue.push_shared(bytes.clone(), &pool);
    queue.clear();
    assert!(bytes.is_unique());
}

/// A slow reader of a broadcast costs a few words: chunks, and one entry.
#[test]
fn a_shared_message_takes_a_few_words() {
    let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
    queue.push_shared(shared(5000), &pool);
    let chunks = queue.0.as_ref().unwrap();
    let words = (size_of::<Chunks>() + chunks.more.capacity() * size_of::<Chunk>()) / size_of::<usize>();
    assert_eq!((words, chunks.head.capacity()), (16, 0));
}

/// For all mixtures of writes, sends and loans, the bytes come out in order, and an emptied queue
/// owns nothing.
#[test]
fn mixed_bytes_come_out_as_they_went_in() {
    let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
    let (mut written, mut sent) = (Vec::new(), Vec::new());
    let all = shared(100_000);
    let mut random = 7_u64;
    let mut below = |limit: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % limit
    };
    for _ in 0..4000 {
        let at = below(all.len() - 20_000);
        let bytes = all.slice(at..at + [0, 1, 100, 4095, 4096, 9000, 20_000][below(7)]);
        written.extend_from_slice(&bytes);
        match below(3) {
            0 => queue.push_shared(bytes, &pool),
            1 => queue.append(bytes.to_vec(), &pool),
            _ if queue.push_first(&bytes, &pool) => {}
            _ => queue.push(&bytes, &pool),
        }
        assert_eq!(queue.len(), written.len() - sent.len());
        if below(3) == 0 {
            let Some(in_flight) = queue.lend() else { continue };
            assert!(queue.front().is_empty() && queue.lend().is_none() && queue.is_lent());
            let count = below(in_flight.bytes().len() + 1);
            sent.extend_from_slice(&in_flight.bytes()[..count]);
            if below(2) == 0 {
                queue.push_shared(all.slice(..5000), &pool);
                written.extend_from_slice(&all[..5000]);
            }
            queue.take_back(in_flight, count, &pool);
        } else {
            let bytes = contents(&queue);
            let count = below(bytes.len() + 1);
            sent.extend_from_slice(&bytes[..count]);
            queue.advance(count, &pool);
        }
        assert_eq!(queue.is_empty(), sent.len() == written.len());
    }
    while !queue.is_empty() {
        let front = queue.front().to_vec();
        sent.extend_from_slice(&front);
        queue.advance(front.len(), &pool);
    }
    assert!(sent == written);
}

/// Shared bytes are lent as copies of a chunk, which come back in front of the rest.
#[test]
fn shared_bytes_are_lent_chunk_by_chunk() {
    let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
    let bytes = shared(CHUNK + 5000);
    queue.push_shared(bytes.clone(), &pool);
    assert!(!queue.begins_copied());
    let in_flight = queue.lend().unwrap();
    assert_eq!((in_flight.bytes(), queue.len()), (&bytes[..CHUNK], CHUNK + 5000));
    queue.push(b"behind", &pool);
    queue.take_back(in_flight, 4000, &pool);
    assert!(queue.begins_copied() && queue.front() == &bytes[4000..CHUNK] && queue.len() == CHUNK + 1006);
    queue.advance(CHUNK - 4000, &pool);
    assert_eq!((queue.front(), queue.begins_copied()), (&bytes[CHUNK..], false));
    let in_flight = queue.lend().unwrap();
    assert!(bytes.is_unique(), "a copy needs no reference");
    queue.take_back(in_flight, 5000, &pool);
    assert_eq!(contents(&queue), b"behind");
    queue.advance(6, &pool);

    queue.push_shared(bytes.clone(), &pool);
    let in_flight = queue.lend().unwrap();
    queue.clear();
    queue.take_back(in_flight, 0, &pool);
    assert!(queue.is_empty() && bytes.is_unique());
}

/// A queue that begins with shared bytes keeps no buffer of the pool, and its chunks are used
/// again.
#[test]
fn chunks_without_a_buffer_are_used_again() {
    let (mut queue, pool) = (SendQueue::default(), BufferPool::default());
    queue.push(b"a buffer", &pool);
    queue.advance(8, &pool);
    let kept = pool.0.borrow().bytes;
    assert!(kept > 0);
    let mut place = None;
    for _ in 0..3 {
        queue.push_shared(shared(5000), &pool);
        assert_eq!(pool.0.borrow().bytes, kept, "it took a buffer");
        let chunks: *const Chunks = &raw const **queue.0.as_ref().unwrap();
        assert_eq!(*place.get_or_insert(chunks), chunks);
        queue.advance(5000, &pool);
    }
}
