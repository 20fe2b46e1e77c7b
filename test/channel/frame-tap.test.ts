// The tap, driven as the socket drives it: it names memory, the test fills some of it. What comes out, past ws and
// through ws, is every message once and in order, however the octets are cut. And the pool that it takes memory from.

import { expect } from 'chai';
import fc from 'fast-check';
import { Socket } from 'node:net';
import { FrameTap } from '../../src/channel/link/frame-tap.js';
import { MessagePool } from '../../src/channel/link/pool.js';
import { RecordReader } from '../../src/stream/record-reader.js';
import { RecordType } from '../../src/stream/format.js';
import { encodeRecord } from '../../src/stream/writer.js';

const LIMIT = 100_000;

interface Frame {
  readonly first: number;
  readonly length: number;
}

/** A frame as a server sends it, its payload filled with `mark`. */
function frameOf({ first, length }: Frame, mark: number): Buffer {
  const header = Buffer.alloc(length < 126 ? 2 : length < 65_536 ? 4 : 10);
  header[0] = first;
  header[1] = length < 126 ? length : length < 65_536 ? 126 : 127;
  if (header.length === 4) header.writeUInt16BE(length, 2);
  if (header.length === 10) header.writeBigUInt64BE(BigInt(length), 2);
  return Buffer.concat([header, Buffer.alloc(length, mark)]);
}

/** Frames out of the octets that ws is given: "first length mark". */
class Deframer {
  #pending = Buffer.alloc(0);
  push(chunk: Buffer, out: string[]): void {
    this.#pending = Buffer.concat([this.#pending, chunk]);
    for (;;) {
      const pending = this.#pending;
      const short = pending[1] ?? 0;
      const header = short < 126 ? 2 : short === 126 ? 4 : 10;
      if (pending.length < header) return;
      const length =
        header === 2 ? short : header === 4 ? pending.readUInt16BE(2) : Number(pending.readBigUInt64BE(2));
      if (pending.length < header + length) return;
      out.push(`${pending[0] ?? 0} ${length} ${length > 0 ? (pending[header] ?? 0) : '-'}`);
      this.#pending = pending.subarray(header + length);
    }
  }
}

/** Drives a tap through an HTTP answer and the octets after it, cut as `cuts` says. */
function drive(octets: Buffer, cuts: readonly number[], afterAnswer = '') {
  const out: string[] = [];
  let past = 0;
  const tap = new FrameTap(LIMIT, new MessagePool(1 << 20));
  const socket = new Socket();
  const deframer = new Deframer();
  let http = true;
  socket.on('data', (chunk: Buffer) => {
    if (!http) deframer.push(chunk, out);
  });
  tap.attach(socket);
  const buffer = tap.onread.buffer as () => Uint8Array;
  const feed = (bytes: Buffer, most: number): Buffer => {
    const target = buffer();
    const count = Math.min(most, target.length, bytes.length);
    target.set(bytes.subarray(0, count));
    tap.onread.callback(count, target);
    return bytes.subarray(count);
  };
  for (let rest: Buffer = Buffer.from(`HTTP/1.1 101 x\r\n\r\n${afterAnswer}`); rest.length > 0;)
    rest = feed(rest, 9);
  http = false;
  if (afterAnswer !== '') deframer.push(Buffer.from(afterAnswer, 'latin1'), out);
  tap.start((message) => {
    past++;
    expect(message.every((octet) => octet === message[0])).to.equal(true);
    out.push(`130 ${message.length} ${message[0] ?? 0}`);
  });
  let rest: Buffer = octets;
  for (let i = 0; rest.length > 0; i++) rest = feed(rest, cuts[i % cuts.length] ?? 1);
  socket.destroy();
  return { out, past };
}

const expected = (frames: readonly Frame[]) =>
  frames.map(({ first, length }, i) => `${first} ${length} ${length > 0 ? i % 256 : '-'}`);

describe('frame tap', () => {
  const lengths = fc.oneof(
    fc.integer({ min: 0, max: 200 }),
    fc.integer({ min: 16_000, max: 17_000 }),
    fc.integer({ min: 65_000, max: LIMIT }),
  );
  const frames = fc.array(
    fc.oneof(
      { weight: 6, arbitrary: fc.record({ first: fc.constant(0x82), length: lengths }) },
      { weight: 1, arbitrary: fc.record({ first: fc.constantFrom(0x89, 0x8a), length: fc.nat(125) }) },
      { weight: 1, arbitrary: fc.record({ first: fc.constantFrom(0x81), length: lengths }) },
    ),
    { minLength: 1, maxLength: 8 },
  );
  const cuts = fc.array(fc.oneof(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: 70_000 })), {
    minLength: 1,
    maxLength: 10,
  });

  it('gives every message once, in order, however they are cut', () => {
    fc.assert(
      fc.property(frames, cuts, fc.boolean(), (list, sizes, small) => {
        // With tiny cuts only, a large message would take a hundred thousand of them.
        const steps = small ? [...sizes, 70_000] : sizes.map((size) => Math.max(size, 500));
        const octets = Buffer.concat(list.map((frame, i) => frameOf(frame, i % 256)));
        const { out, past } = drive(octets, steps);
        expect(out).to.deep.equal(expected(list));
        const large = list.filter(({ first, length }) => first === 0x82 && length >= 16 * 1024);
        expect(past).to.equal(large.length);
      }),
      { numRuns: 200 },
    );
  });

  it('octet by octet', () => {
    const list = [
      { first: 0x82, length: 16_384 },
      { first: 0x89, length: 0 },
      { first: 0x82, length: 70_000 },
      { first: 0x82, length: 5 },
    ];
    const { out, past } = drive(Buffer.concat(list.map(frameOf)), [1]);
    expect(out).to.deep.equal(expected(list));
    expect(past).to.equal(2);
  });

  const unusual: [string, Frame][] = [
    ['a fragment', { first: 0x02, length: 20_000 }],
    ['a reserved bit', { first: 0xc2, length: 20_000 }],
    ['a length beyond the limit', { first: 0x82, length: LIMIT + 1 }],
  ];
  for (const [what, frame] of unusual) {
    it(`leaves ${what} to ws`, () => {
      const list = [{ first: 0x82, length: 20_000 }, frame];
      const { out, past } = drive(Buffer.concat(list.map(frameOf)), [1000]);
      expect(out).to.deep.equal(expected(list));
      expect(past).to.equal(1);
    });
  }

  it('leaves everything after a fragment to ws, and everything where frames came with the answer', () => {
    const list = [
      { first: 0x02, length: 10 },
      { first: 0x80, length: 10 },
      { first: 0x82, length: 20_000 },
    ];
    const cut = drive(Buffer.concat(list.map(frameOf)), [1000]);
    expect(cut).to.deep.equal({ out: expected(list), past: 0 });
    const early = drive(frameOf({ first: 0x82, length: 20_000 }, 7), [1000], '\x82\x01a');
    expect(early).to.deep.equal({ out: ['130 1 97', '130 20000 7'], past: 0 });
  });
});

describe('message pool', () => {
  const record = (length: number) => encodeRecord(RecordType.PAGE_DATA, new Uint8Array(length).fill(1));

  /** A message of the pool that holds these octets after its kind, and the records in it. */
  function readFrom(pool: MessagePool, ...parts: Uint8Array[]) {
    const octets = Buffer.concat([Buffer.from([2]), ...parts]);
    const message = pool.take(octets.length);
    octets.copy(message);
    const reader = new RecordReader({ withoutHeaders: true });
    reader.push(message.subarray(1));
    const records = [];
    for (let next = reader.next(); next; next = reader.next()) records.push(next);
    return { message, records };
  }

  it('gives released memory out again, once', () => {
    const pool = new MessagePool(1 << 20);
    const { message, records } = readFrom(pool, record(100_003));
    const [first] = records;
    if (!first) throw new Error('no record');
    expect(first.body.byteOffset % 8).to.equal(0);
    pool.release(first);
    pool.release(first);
    const again = pool.take(message.length - 5000);
    const other = pool.take(message.length);
    expect(again.buffer).to.equal(message.buffer);
    expect(again.length).to.equal(message.length - 5000);
    expect(other.buffer).not.to.equal(message.buffer);
  });

  it('takes back no memory that other records lie in, and none that is not its own', () => {
    const pool = new MessagePool(1 << 20);
    for (const parts of [
      [record(50_000), record(16)],
      [record(16), record(50_000)],
      [record(50_000), new Uint8Array(4)],
    ]) {
      for (const one of readFrom(pool, ...parts).records) pool.release(one);
    }
    pool.release({ type: 1, body: new Uint8Array(100), offset: 0 });
    pool.release({ type: 1, body: new Uint8Array(new SharedArrayBuffer(100)), offset: 0 });
    expect(pool.freeBytes).to.equal(0);
  });

  it('keeps no more than its limit, and wastes no large memory on a small message', () => {
    const pool = new MessagePool(300_000);
    const taken = [1, 2, 3, 4].map(() => readFrom(pool, record(120_000)).records[0]);
    for (const one of taken) if (one) pool.release(one);
    expect(pool.freeBytes).to.be.within(200_000, 300_000);
    const free = pool.freeBytes;
    pool.take(20_000);
    expect(pool.freeBytes).to.equal(free);
  });
});
