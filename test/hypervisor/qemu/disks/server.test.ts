// The server's two halves without a socket: what they answer, however what they hear is cut, and whatever it is.

import { expect } from 'chai';
import fc from 'fast-check';
import { SLAB_BYTES, WriteKind } from '../../../../src/disk/extents.js';
import { SlabPool } from '../../../../src/disk/slab-pool.js';
import { NbdError } from '../../../../src/hypervisor/qemu/disks/nbd/error.js';
import { DiskExport } from '../../../../src/hypervisor/qemu/disks/nbd/export.js';
import { Negotiation } from '../../../../src/hypervisor/qemu/disks/nbd/negotiation.js';
import {
  Command,
  NbdErrno,
  Option,
  OptionReply,
  optionOctets,
} from '../../../../src/hypervisor/qemu/disks/nbd/protocol.js';
import { Transmission } from '../../../../src/hypervisor/qemu/disks/nbd/transmission.js';
import { mutate } from '../../../channel/mutations.js';
import { ModelDisk, apply, kindsOf } from '../../../disk/model.js';
import { newSeed, seeded } from '../../../support/random.js';
import {
  CLIENT_FLAGS,
  nameOption,
  optionReplies,
  request,
  simpleReplies,
  type RequestParts,
} from './requests.js';

const BYTES = 300_000;
const { EINVAL, ENOSPC, EIO } = NbdErrno;

function disk(slabs = 4, bytes = BYTES, pool = new SlabPool(slabs * SLAB_BYTES)): DiskExport {
  return new DiskExport('disk', bytes, pool);
}

/** What it answers to all of it, in pieces that end at the cuts. */
function answers(transmission: Transmission, octets: Buffer, cuts: readonly number[] = []): Buffer {
  const replies: Buffer[] = [];
  const places = [0, ...[...cuts].sort((a, b) => a - b), octets.length];
  const socket = Buffer.alloc(octets.length); // reused, as a socket's may be
  for (let i = 1; i < places.length; i++) {
    const [from = 0, to = 0] = [places[i - 1], places[i]];
    octets.copy(socket, 0, from, to);
    for (let at = 0; at < to - from && !transmission.isOver && !transmission.isHeld;) {
      at = transmission.feed(socket.subarray(0, to - from), at);
      replies.push(transmission.takeReplies() ?? Buffer.alloc(0));
    }
  }
  return Buffer.concat(replies);
}

const part: fc.Arbitrary<RequestParts> = fc
  .record({
    type: fc.constantFrom(Command.WRITE, Command.WRITE, Command.WRITE, Command.TRIM, Command.WRITE_ZEROES),
    offset: fc.nat(BYTES - 1),
    length: fc.integer({ min: 1, max: 70_000 }),
    fill: fc.nat(255),
  })
  .map(({ type, offset, length, fill }) => {
    const bytes = Math.min(length, BYTES - offset);
    if (type !== Command.WRITE) return { type, offset, length: bytes };
    return { type, offset, data: new Uint8Array(bytes).fill(fill) };
  });

describe('qemu disks: the requests of a client', () => {
  it('are done and answered in their order, however they are cut', () => {
    fc.assert(
      fc.property(
        fc.array(part, { maxLength: 8 }),
        fc.array(fc.nat(500_000), { maxLength: 12 }),
        (parts, cuts) => {
          const octets = Buffer.concat(
            parts.map((each, i) => request({ ...each, cookie: BigInt(i) << 33n })),
          );
          const model = new ModelDisk(BYTES);
          for (const { type, offset, length = 0, data } of parts) {
            if (data) model.write(Number(offset), data);
            else
              model.cover(type === Command.TRIM ? WriteKind.DISCARD : WriteKind.ZERO, Number(offset), length);
          }
          const exported = disk();
          const places = cuts.map((cut) => cut % (octets.length + 1));
          const replies = simpleReplies(answers(new Transmission(exported), octets, places));
          expect(replies).to.deep.equal(parts.map((_, i) => [0, BigInt(i) << 33n]));
          const sealed = exported.seal();
          expect(Buffer.compare(kindsOf(sealed, BYTES), model.kinds)).to.equal(0);
          const standby = new Uint8Array(BYTES).fill(0xee);
          apply(sealed, standby, model.octets);
          const differs = standby.findIndex(
            (octet, at) => octet !== model.octets[at] && model.kinds[at] !== WriteKind.DISCARD,
          );
          expect(differs).to.equal(-1);
          const writes = parts.filter(({ data }) => data).length;
          expect(sealed.counters).to.include({ writes, covers: parts.length - writes, reads: 0 });
        },
      ),
      { numRuns: 100 },
    );
  });

  it('are refused one by one where they cannot be, and those behind them are done', () => {
    const data = new Uint8Array(512);
    const cases: readonly (readonly [number, RequestParts])[] = [
      [EIO, { type: Command.READ, length: 512 }],
      [EINVAL, { type: Command.FLUSH }],
      [EINVAL, { type: Command.BLOCK_STATUS, length: 512 }],
      [EINVAL, { type: 77, length: 512 }],
      [ENOSPC, { type: Command.WRITE, offset: BYTES - 511, data }],
      [ENOSPC, { type: Command.WRITE, offset: 2n ** 64n - 512n, data }],
      [EINVAL, { type: Command.WRITE, flags: 1, data }], // FUA
      [EINVAL, { type: Command.WRITE, data: new Uint8Array(0) }],
      [EINVAL, { type: Command.TRIM, offset: BYTES, length: 1 }],
      [EINVAL, { type: Command.TRIM, flags: 1, length: 1 }],
      [ENOSPC, { type: Command.WRITE_ZEROES, length: BYTES + 1 }],
      [EINVAL, { type: Command.WRITE_ZEROES, length: 0 }],
      [EINVAL, { type: Command.WRITE_ZEROES, flags: 16, length: 1 }], // FAST_ZERO
      [0, { type: Command.WRITE_ZEROES, flags: 2, length: 1 }], // NO_HOLE
      [0, { type: Command.WRITE, offset: BYTES - 512, data }],
    ];
    const exported = disk();
    const octets = Buffer.concat(cases.map(([, each]) => request(each)));
    const replies = simpleReplies(answers(new Transmission(exported), octets));
    expect(replies.map(([errno]) => errno)).to.deep.equal(cases.map(([errno]) => errno));
    const { extents, counters } = exported.seal();
    expect([...extents.offsets]).to.deep.equal([0, BYTES - 512]);
    expect(counters).to.deep.equal({ writes: 1, writtenBytes: 512, covers: 1, reads: 1 });
  });

  it('end where the next one would not be found', () => {
    const over = new Transmission(disk());
    expect(() => over.feed(Buffer.alloc(28), 0)).to.throw(NbdError, 'none');
    const long = request({ type: Command.WRITE, length: 32 * 1024 * 1024 + 1 });
    expect(() => new Transmission(disk(4, 2 ** 40)).feed(long, 0)).to.throw(NbdError, 'too long');
    const leave = new Transmission(disk());
    const said = Buffer.concat([request({ type: Command.DISC }), request({ type: Command.TRIM, length: 1 })]);
    expect([leave.feed(said, 0), leave.isOver, leave.takeReplies()]).to.deep.equal([28, true, null]);
  });

  it('whatever is said is answered, or is the end with a typed error', () => {
    const seed = newSeed();
    const random = seeded(seed);
    const valid = [
      request({ type: Command.WRITE, offset: 4096, data: new Uint8Array(3000) }),
      request({ type: Command.TRIM, offset: 512, length: 1024 }),
      request({ type: Command.WRITE_ZEROES, length: 4096 }),
      request({ type: Command.READ, length: 512 }),
    ];
    const pool = new SlabPool(SLAB_BYTES);
    for (let round = 0; round < 5000; round++) {
      const octets = mutate(Buffer.concat(valid), random, valid[round % 4] ?? Buffer.alloc(0));
      const exported = disk(1, BYTES, pool);
      try {
        const replies = answers(new Transmission(exported), octets, [Math.floor(random() * octets.length)]);
        expect(replies.length % 16, `seed ${seed}`).to.equal(0);
        expect(replies.length).to.be.at.most((octets.length / 28) * 16);
      } catch (error) {
        if (!(error instanceof NbdError)) throw error;
        expect(error.code).to.equal('PROTOCOL');
      }
      const sealed = exported.seal();
      kindsOf(sealed, BYTES);
      for (const slab of sealed.slabs) pool.give(slab);
    }
  });
});

describe('qemu disks: a write that finds no room', () => {
  const write = request({ type: Command.WRITE, offset: 0, data: new Uint8Array(2 * SLAB_BYTES).fill(5) });
  const chunks = Array.from({ length: Math.ceil(write.length / 65_536) }, (_, i) =>
    write.subarray(i * 65_536, (i + 1) * 65_536),
  );
  const throttled = () => {
    const exported = disk(1, 2 ** 30);
    exported.setMode('throttle');
    return { exported, transmission: new Transmission(exported) };
  };

  it('is held at the octet for which there is none, and goes on there', () => {
    const { exported, transmission } = throttled();
    let rooms = 0;
    exported.onRoom = () => rooms++;
    for (const chunk of chunks.slice(0, 16)) expect(transmission.feed(chunk, 0)).to.equal(chunk.length);
    const [last = Buffer.alloc(0), ...rest] = chunks.slice(16);
    const at = transmission.feed(last, 0);
    expect([at, transmission.isHeld, transmission.takeReplies()]).to.deep.equal([28, true, null]);
    expect([transmission.feed(last, at), transmission.isHeld]).to.deep.equal([28, true]);
    const first = exported.seal();
    expect([first.dirty, first.extents.lengths[0]]).to.deep.equal([null, SLAB_BYTES]);
    expect(transmission.feed(last, at), 'the slab has not come back').to.equal(28);
    exported.letThrough();
    expect(rooms).to.equal(1);
    for (const chunk of [last.subarray(at), ...rest])
      expect(transmission.feed(chunk, 0)).to.equal(chunk.length);
    expect(transmission.takeReplies()).to.have.lengthOf(16);
    expect(exported.seal().dirty?.octets()).to.equal(SLAB_BYTES);
  });

  it('is held again in the epoch after the one in which all was let through', () => {
    const { exported, transmission } = throttled();
    exported.letThrough();
    for (const chunk of chunks) transmission.feed(chunk, 0);
    expect(transmission.takeReplies()).to.have.lengthOf(16);
    exported.seal();
    for (const chunk of chunks.slice(0, 17)) transmission.feed(chunk, 0);
    expect(transmission.isHeld).to.equal(true);
    expect(exported.setMode('map')).to.equal(null);
    expect(transmission.feed(chunks[1] ?? write, 0)).to.equal(65_536);
    expect(exported.setMode('journal')?.isEmpty).to.equal(false);
  });
});

describe('qemu disks: the handshake of a client', () => {
  const exports = [
    { name: 'disk', bytes: 5 * 2 ** 30 },
    { name: 'sda ä', bytes: 512 },
  ];
  const shake = (octets: Buffer, cuts: readonly number[] = [], isFree = true) => {
    const said: Buffer[] = [];
    const negotiation = new Negotiation({ exports, claim: () => isFree }, (each) =>
      said.push(Buffer.from(each)),
    );
    const places = [0, ...[...cuts].sort((a, b) => a - b), octets.length];
    let at = 0;
    for (const place of places) if (place > at) at = negotiation.feed(octets.subarray(0, place), at);
    return { negotiation, at, greeting: said[0], replies: Buffer.concat(said.slice(1)) };
  };

  it('gives the export that was chosen, and leaves what is said to it', () => {
    const octets = Buffer.concat([
      CLIENT_FLAGS,
      optionOctets(Option.LIST, Buffer.alloc(0)),
      optionOctets(Option.STRUCTURED_REPLY, Buffer.alloc(0)),
      optionOctets(5, Buffer.alloc(0)), // STARTTLS
      nameOption(Option.INFO, 'none'),
      nameOption(Option.INFO, 'sda ä'),
      nameOption(Option.GO, 'disk'),
      Buffer.from('the rest'),
    ]);
    fc.assert(
      fc.property(fc.array(fc.nat(octets.length)), (cuts) => {
        const { negotiation, at, greeting, replies } = shake(octets, cuts);
        expect(greeting?.toString('latin1', 0, 16)).to.equal('NBDMAGICIHAVEOPT');
        expect(negotiation.chosen).to.equal(exports[0]);
        expect(octets.toString('latin1', at)).to.equal('the rest');
        const parts = optionReplies(replies);
        expect(parts.map(({ option, type }) => [option, type])).to.deep.equal([
          ...[
            [Option.LIST, OptionReply.SERVER],
            [Option.LIST, OptionReply.SERVER],
            [Option.LIST, OptionReply.ACK],
          ],
          ...[
            [Option.STRUCTURED_REPLY, OptionReply.ERR_UNSUP],
            [5, OptionReply.ERR_UNSUP],
          ],
          [Option.INFO, OptionReply.ERR_UNKNOWN],
          ...[
            [Option.INFO, OptionReply.INFO],
            [Option.INFO, OptionReply.INFO],
            [Option.INFO, OptionReply.ACK],
          ],
          ...[
            [Option.GO, OptionReply.INFO],
            [Option.GO, OptionReply.INFO],
            [Option.GO, OptionReply.ACK],
          ],
        ]);
        expect(parts[1]?.data.toString('utf8', 4)).to.equal('sda ä');
        expect(parts[6]?.data.readBigUInt64BE(2)).to.equal(512n);
        const flags = parts[9]?.data.readUInt16BE(10) ?? 0;
        expect(flags & (1 << 2), 'FLUSH').to.equal(0);
        expect(flags & (1 << 3), 'FUA').to.equal(0);
        expect(flags).to.equal((1 << 0) | (1 << 5) | (1 << 6));
        expect(parts[10]?.data.readUInt32BE(10)).to.equal(32 * 1024 * 1024);
      }),
      { numRuns: 50 },
    );
  });

  it('knows the oldest way to choose, with zeroes and without', () => {
    const choose = (flags: number) =>
      shake(
        Buffer.concat([Buffer.from([0, 0, 0, flags]), optionOctets(Option.EXPORT_NAME, Buffer.from('disk'))]),
      );
    for (const [flags, length] of [
      [1, 134],
      [3, 10],
    ] as const) {
      const { negotiation, replies } = choose(flags);
      expect([negotiation.chosen?.name, replies.length]).to.deep.equal(['disk', length]);
      expect(replies.readBigUInt64BE(0)).to.equal(5n * 2n ** 30n);
    }
    const taken = Buffer.concat([CLIENT_FLAGS, optionOctets(Option.EXPORT_NAME, Buffer.from('none'))]);
    expect(() => shake(taken)).to.throw(NbdError);
  });

  it('refuses what another client has, and what makes no sense, and goes on', () => {
    const busy = shake(Buffer.concat([CLIENT_FLAGS, nameOption(Option.GO, 'disk')]), [], false);
    expect(optionReplies(busy.replies)[0]?.type).to.equal(OptionReply.ERR_POLICY);
    expect(busy.negotiation.chosen).to.equal(null);
    const senseless = [
      optionOctets(Option.GO, Buffer.alloc(3)),
      optionOctets(Option.GO, Buffer.from([0xff, 0xff, 0xff, 0xff, 0, 0])),
      optionOctets(Option.GO, Buffer.from([0, 0, 0, 0, 0, 1])),
      optionOctets(Option.LIST, Buffer.alloc(1)),
      optionOctets(Option.ABORT, Buffer.alloc(0)),
    ];
    const { negotiation, replies } = shake(Buffer.concat([CLIENT_FLAGS, ...senseless]));
    const { ERR_INVALID, ACK } = OptionReply;
    expect(optionReplies(replies).map(({ type }) => type)).to.deep.equal([
      ...Array<number>(4).fill(ERR_INVALID),
      ACK,
    ]);
    expect(negotiation.isAborted).to.equal(true);
  });

  it('whatever is said is answered, or is the end with a typed error', () => {
    expect(() => shake(Buffer.from([0, 0, 0, 0]))).to.throw(NbdError, 'flags');
    expect(() => shake(Buffer.from([0, 0, 0, 7]))).to.throw(NbdError, 'flags');
    const long = optionOctets(Option.LIST, Buffer.alloc(0));
    long.writeUInt32BE(2 ** 31, 12);
    expect(() => shake(Buffer.concat([CLIENT_FLAGS, long]))).to.throw(NbdError, 'too long');
    const seed = newSeed();
    const random = seeded(seed);
    const valid = Buffer.concat([
      CLIENT_FLAGS,
      nameOption(Option.INFO, 'sda ä'),
      optionOctets(Option.LIST, Buffer.alloc(0)),
      nameOption(Option.GO, 'disk'),
    ]);
    for (let round = 0; round < 5000; round++) {
      const octets = mutate(valid, random, nameOption(Option.GO, 'x'));
      try {
        const { replies } = shake(octets, [Math.floor(random() * octets.length)]);
        expect(replies.length, `seed ${seed}`).to.be.below(1000);
      } catch (error) {
        if (!(error instanceof NbdError)) throw error;
        expect(error.code).to.equal('PROTOCOL');
      }
    }
  });
});
