// The client against servers that are none, and what it hears, octet by octet.

import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { expect } from 'chai';
import { ALLOCATION } from '../../../../src/hypervisor/qemu/disks/nbd/block-status.js';
import { ClientNegotiation } from '../../../../src/hypervisor/qemu/disks/nbd/client-negotiation.js';
import { NbdClient } from '../../../../src/hypervisor/qemu/disks/nbd/client.js';
import { NbdError } from '../../../../src/hypervisor/qemu/disks/nbd/error.js';
import { Command, ReplyType } from '../../../../src/hypervisor/qemu/disks/nbd/protocol.js';
import { Replies, type Pending } from '../../../../src/hypervisor/qemu/disks/nbd/replies.js';
import { mutate } from '../../../channel/mutations.js';
import { Cleanup } from '../../../support/cleanup.js';
import { newSeed, seeded } from '../../../support/random.js';
import { expectNbd } from './support.js';
import { stamped } from './writers.js';

/** As Replies wants it; what became of it. */
function pending(command: Command, offset: number, length: number) {
  const outcome: { status: Uint32Array | null; error: NbdError | null } = { status: null, error: null };
  const request: Pending = {
    ...{ command, offset, length, context: 3, received: 0, status: null, errno: 0 },
    into: command === Command.READ ? new Uint8Array(length).fill(0xaa) : null,
    resolve: (status) => (outcome.status = status),
    reject: (error) => (outcome.error = error),
  };
  return { request, outcome };
}

function structured(cookie: number, type: number, payload: Buffer, isLast = true): Buffer {
  const header = Buffer.alloc(20);
  header.writeUInt32BE(0x668e33ef, 0);
  header.writeUInt16BE(isLast ? 1 : 0, 4);
  header.writeUInt16BE(type, 6);
  header.writeUInt32BE(cookie, 12);
  header.writeUInt32BE(payload.length, 16);
  return Buffer.concat([header, payload]);
}

function simple(cookie: number, errno: number, data = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(16);
  header.writeUInt32BE(0x67446698, 0);
  header.writeUInt32BE(errno, 4);
  header.writeUInt32BE(cookie, 12);
  return Buffer.concat([header, data]);
}

/** u64 | the rest. */
function at(offset: number, rest: Buffer): Buffer {
  const head = Buffer.alloc(8);
  head.writeBigUInt64BE(BigInt(offset));
  return Buffer.concat([head, rest]);
}

function words(...values: number[]): Buffer {
  const octets = Buffer.alloc(4 * values.length);
  values.forEach((value, i) => octets.writeUInt32BE(value, 4 * i));
  return octets;
}

describe('qemu disks: the client, with strangers', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  it('a server that says nonsense is left, and says so to all who wait', async () => {
    const path = `${await cleanup.directory()}/socket`;
    const sockets: Socket[] = [];
    const server = createServer((socket) => {
      sockets.push(socket.on('error', () => undefined));
      socket.write('SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n');
    }).listen(path);
    cleanup.add(() => {
      for (const socket of sockets) socket.destroy();
      server.close();
    });
    await once(server, 'listening');
    await expectNbd(NbdClient.connect({ path, exportName: 'disk' }), 'PROTOCOL', 'no NBD server');
  });

  const reads: readonly (readonly [string, Command, Buffer])[] = [
    ['nobody has asked', Command.READ, simple(2, 0)],
    ['must be structured', Command.READ, simple(1, 0)],
    ['is none', Command.READ, Buffer.alloc(4)],
    ['not asked for', Command.READ, structured(1, ReplyType.OFFSET_DATA, at(4097, Buffer.alloc(10)))],
    ['not asked for', Command.READ, structured(1, ReplyType.OFFSET_DATA, at(4096, Buffer.alloc(1001)))],
    ['not asked for', Command.READ, structured(1, ReplyType.OFFSET_DATA, at(4096, Buffer.alloc(0)))],
    ['not asked for', Command.READ, structured(1, ReplyType.OFFSET_HOLE, at(4096, words(1001)))],
    ['not asked for', Command.READ, structured(1, ReplyType.OFFSET_HOLE, at(4096, words(10, 0)))],
    ['not asked for', Command.WRITE, structured(1, ReplyType.OFFSET_DATA, at(4096, Buffer.alloc(10)))],
    ['too short', Command.READ, structured(1, ReplyType.OFFSET_DATA, Buffer.alloc(7))],
    ['missing', Command.READ, structured(1, ReplyType.OFFSET_DATA, at(4096, Buffer.alloc(999)))],
    ['missing', Command.READ, structured(1, ReplyType.NONE, Buffer.alloc(0))],
    ['missing', Command.BLOCK_STATUS, structured(1, ReplyType.NONE, Buffer.alloc(0))],
    ['missing', Command.BLOCK_STATUS, structured(1, ReplyType.BLOCK_STATUS, words(4, 512, 0))],
    ['not the last', Command.READ, structured(1, ReplyType.NONE, Buffer.alloc(0), false)],
    ['type is not known', Command.READ, structured(1, 99, Buffer.alloc(4))],
    ['no length', Command.READ, structured(1, ReplyType.ERROR + 1, Buffer.alloc(0))],
    ['that is none', Command.READ, structured(1, ReplyType.ERROR + 1, Buffer.alloc(6))],
    ['that is none', Command.READ, structured(1, ReplyType.ERROR + 1, words(5))],
    ['that is none', Command.READ, structured(1, ReplyType.BLOCK_STATUS, words(3, 512, 0))],
    ['that is none', Command.BLOCK_STATUS, structured(1, ReplyType.BLOCK_STATUS, words(3, 512))],
    ['of nothing', Command.BLOCK_STATUS, structured(1, ReplyType.BLOCK_STATUS, words(3, 0, 0))],
    ['of nothing', Command.BLOCK_STATUS, structured(1, ReplyType.BLOCK_STATUS, words(3, 1000, 0, 1, 0))],
  ];
  for (const [why, command, octets] of reads) {
    it(`a reply that cannot be: ${why} (${octets.toString('hex', 0, 30)})`, () => {
      const { request, outcome } = pending(command, 4096, 1000);
      const all = new Map([[1, request]]);
      expect(() => new Replies(all, true).feed(octets)).to.throw(NbdError, why);
      expect([all.size, outcome.status, outcome.error]).to.deep.equal([1, null, null]);
    });
  }

  it('replies of many kinds, however they are cut, and into whose memory', () => {
    const data = stamped(40_000, 77);
    const octets = Buffer.concat([
      structured(1, ReplyType.OFFSET_DATA, at(0, data), false),
      structured(2, ReplyType.BLOCK_STATUS, words(9, 4096, 7), false),
      structured(1, ReplyType.OFFSET_HOLE, at(40_000, words(1000)), false),
      structured(2, ReplyType.BLOCK_STATUS, words(3, 4096, 1, 1_000_000, 2)),
      structured(1, ReplyType.OFFSET_DATA, at(41_000, data.subarray(0, 24_536))),
      simple(3, 28),
      structured(4, ReplyType.ERROR + 2, Buffer.concat([words(5), Buffer.from([0, 2, 0x6e, 0x6f])]), false),
      structured(4, ReplyType.NONE, Buffer.alloc(0)),
    ]);
    const random = seeded(newSeed());
    for (let round = 0; round < 300; round++) {
      const requests = [
        pending(Command.READ, 0, 65_536),
        pending(Command.BLOCK_STATUS, 0, 65_536),
        pending(Command.WRITE, 0, 512),
        pending(Command.READ, 0, 512),
      ];
      const all = new Map(requests.map(({ request }, i) => [i + 1, request]));
      const replies = new Replies(all, true);
      for (let from = 0; from < octets.length;) {
        const target = replies.target();
        const to = Math.min(octets.length, from + 1 + Math.floor(random() ** 3 * 50_000));
        if (target === null) replies.feed(octets.subarray(from, to));
        const count =
          target === null ? to - from : octets.copy(target, 0, from, Math.min(to, from + target.length));
        if (target !== null) replies.filled(count);
        from += count;
      }
      expect(all.size).to.equal(0);
      const expected = Buffer.concat([data, Buffer.alloc(1000), data.subarray(0, 24_536)]);
      expect(Buffer.compare(requests[0]?.request.into ?? data, expected)).to.equal(0);
      expect([...(requests[1]?.outcome.status ?? [])]).to.deep.equal([4096, 1, 61_440, 2]);
      expect(requests[2]?.outcome.error?.facts['errno']).to.equal(28);
      expect(requests[3]?.outcome.error?.facts['errno']).to.equal(5);
    }
  });

  it('whatever a server says is taken, or is the end with a typed error', () => {
    const greeting = Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), Buffer.from([0, 3])]);
    const reply = (option: number, type: number, data: Buffer) => {
      const head = Buffer.concat([Buffer.from('0003e889045565a9', 'hex'), words(option, type, data.length)]);
      return Buffer.concat([head, data]);
    };
    const info = Buffer.concat([Buffer.from([0, 0]), at(2 ** 30, Buffer.from([0, 0x0d]))]);
    const handshake = Buffer.concat([
      ...[
        greeting,
        reply(8, 1, Buffer.alloc(0)),
        reply(10, 4, Buffer.concat([words(3), Buffer.from(ALLOCATION)])),
      ],
      ...[reply(10, 1, Buffer.alloc(0)), reply(7, 3, info), reply(7, 1, Buffer.alloc(0))],
    ]);
    const replies = Buffer.concat([
      structured(1, ReplyType.OFFSET_DATA, at(0, Buffer.alloc(512)), false),
      structured(1, ReplyType.OFFSET_HOLE, at(512, words(512))),
      structured(2, ReplyType.BLOCK_STATUS, words(3, 512, 0, 512, 3)),
      simple(3, 0),
    ]);
    const sent: Uint8Array[] = [];
    const valid = new ClientNegotiation('disk', [ALLOCATION], (octets) => sent.push(octets));
    valid.feed(handshake, 0);
    expect(valid.agreement).to.deep.include({ bytes: 2 ** 30, isStructured: true });
    expect(sent).to.have.lengthOf(4);
    const seed = newSeed();
    const random = seeded(seed);
    for (let round = 0; round < 4000; round++) {
      try {
        const octets = mutate(handshake, random, replies);
        const negotiation = new ClientNegotiation('disk', [ALLOCATION], () => undefined);
        const end = negotiation.feed(octets, 0);
        expect(end).to.be.at.most(octets.length);
      } catch (error) {
        if (!(error instanceof NbdError)) throw error;
        expect(error.code, `seed ${seed}`).to.be.oneOf(['PROTOCOL', 'REFUSED']);
      }
      const requests = [Command.READ, Command.BLOCK_STATUS, Command.WRITE].map((each) =>
        pending(each, 0, 1024),
      );
      const all = new Map(requests.map(({ request }, i) => [i + 1, request]));
      try {
        new Replies(all, true).feed(mutate(replies, random, handshake));
      } catch (error) {
        if (!(error instanceof NbdError)) throw error;
        expect(error.code, `seed ${seed}`).to.equal('PROTOCOL');
      }
    }
  });
});
