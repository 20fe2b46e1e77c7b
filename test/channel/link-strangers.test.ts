// What either end of a link makes of another that does not keep to the protocol.

import { expect } from 'chai';
import WebSocket from 'ws';
import type { ChannelError } from '../../src/channel/contract.js';
import {
  PROTOCOL_VERSION,
  SUBPROTOCOL,
  type PrimaryLink,
  type SecondaryLink,
} from '../../src/channel/contract.js';
import { encodeControl } from '../../src/channel/wire/encode.js';
import { RomulusError, codeOf } from '../../src/errors.js';
import { RecordType } from '../../src/stream/format.js';
import type { StreamRecord } from '../../src/stream/record.js';
import { FakePrimary } from './fake-primary.js';
import { mutate, validControls } from './mutations.js';
import { Cleanup } from '../support/cleanup.js';
import { until } from '../support/until.js';
import {
  TestPrimary,
  bulkRecord,
  checkpointRecord,
  endRecord,
  errorOf,
  helloOf,
  lostOf,
  seeded,
  streamHeaders,
} from './support.js';

const MIB = 1024 * 1024;

describe('link: who does not keep to the protocol', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  async function primaryOf(options = {}): Promise<TestPrimary> {
    const primary = await new TestPrimary(options).start();
    cleanup.add(() => primary.listener.close());
    return primary;
  }

  async function fakeOf(): Promise<FakePrimary> {
    const fake = await new FakePrimary().start();
    cleanup.add(() => fake.close());
    return fake;
  }

  /** Reads up to the next CHECKPOINT or END, and the boundary. */
  async function readEpoch(link: SecondaryLink) {
    const records: StreamRecord[] = [];
    for (;;) {
      const record = await link.source.read();
      if (record === null) throw new Error('the stream broke');
      records.push(record);
      if (record.type === RecordType.CHECKPOINT || record.type === RecordType.END) break;
    }
    return { records, boundary: await link.boundary() };
  }

  describe('a primary that does not keep to the protocol', () => {
    const cases: [string, (peer: WebSocket) => void, ChannelError['code']][] = [
      [
        'text',
        (peer) => {
          peer.send('hello');
        },
        'BAD_MESSAGE',
      ],
      [
        'an unknown kind',
        (peer) => {
          peer.send(Buffer.from([3, 1, 2]));
        },
        'BAD_MESSAGE',
      ],
      [
        'an empty message',
        (peer) => {
          peer.send(Buffer.alloc(0));
        },
        'BAD_MESSAGE',
      ],
      [
        'an empty piece',
        (peer) => {
          peer.send(Buffer.from([2]));
        },
        'BAD_MESSAGE',
      ],
      [
        'a second welcome',
        (peer) => {
          peer.send(FakePrimary.welcome());
        },
        'BAD_MESSAGE',
      ],
      [
        'an acknowledgement',
        (peer) => {
          peer.send(encodeControl({ kind: 'ack', epoch: 0 }));
        },
        'BAD_MESSAGE',
      ],
      [
        'another digest',
        (peer) => {
          peer.send(Buffer.concat([Buffer.from([2]), streamHeaders, checkpointRecord]));
          peer.send(FakePrimary.checkpoint({ bytes: 48, digest: 1n }));
        },
        'DIGEST_MISMATCH',
      ],
      [
        'another length',
        (peer) => {
          FakePrimary.sendEpoch(peer, [streamHeaders, checkpointRecord], { bytes: 40 });
        },
        'DIGEST_MISMATCH',
      ],
      [
        'a checkpoint that repeats its epoch',
        (peer) => {
          FakePrimary.sendEpoch(peer, [streamHeaders, checkpointRecord], { epoch: 4 });
          FakePrimary.sendEpoch(peer, [checkpointRecord], { epoch: 4 });
        },
        'BAD_MESSAGE',
      ],
      [
        'a piece after the end',
        (peer) => {
          FakePrimary.sendEpoch(peer, [streamHeaders, endRecord], { end: true });
          peer.send(Buffer.concat([Buffer.from([2]), checkpointRecord]));
        },
        'BAD_MESSAGE',
      ],
      [
        'a WebSocket close',
        (peer) => {
          peer.close(1001);
        },
        'LINK_CLOSED',
      ],
      [
        'a cut',
        (peer) => {
          peer.terminate();
        },
        'LINK_CLOSED',
      ],
    ];
    for (const [what, act, code] of cases) {
      it(`${what}: ${code}`, async () => {
        const fake = await fakeOf();
        const { link, peer } = await fake.pair();
        act(peer);
        expect((await lostOf(link)).code).to.equal(code);
        await until('the connection is closed', () => peer.readyState === WebSocket.CLOSED);
      });
    }

    it('a checkpoint message in the middle of a record', async () => {
      const fake = await fakeOf();
      const { link, peer } = await fake.pair();
      const record = bulkRecord(100, 1);
      FakePrimary.sendEpoch(peer, [streamHeaders, checkpointRecord, record.subarray(0, 40)], {});
      await link.source.read();
      expect((await errorOf(link.boundary())).code).to.equal('BAD_MESSAGE');
      expect((await lostOf(link)).code).to.equal('BAD_MESSAGE');
    });

    it('pieces where the checkpoint message is due', async () => {
      const fake = await fakeOf();
      const { link, peer } = await fake.pair();
      peer.send(Buffer.concat([Buffer.from([2]), streamHeaders, checkpointRecord]));
      await link.source.read();
      const boundary = errorOf(link.boundary());
      peer.send(Buffer.concat([Buffer.from([2]), bulkRecord(8, 1)]));
      expect((await boundary).code).to.equal('BAD_MESSAGE');
    });

    it('falls silent: HEARTBEAT_TIMEOUT', async () => {
      const fake = await fakeOf();
      const { link } = await fake.pair();
      const error = await lostOf(link);
      expect(error.code).to.equal('HEARTBEAT_TIMEOUT');
      expect(error.facts['silentMs']).to.be.within(200, 2000);
    });
  });

  it('300 mutated messages leave the secondary with a typed error or a clean end', async () => {
    const fake = await fakeOf();
    const random = seeded(300);
    const piece = Buffer.concat([Buffer.from([2]), streamHeaders, bulkRecord(20_000, 1), checkpointRecord]);
    const messages = [...validControls.map(encodeControl), piece];
    const counts = new Map<string, number>();
    for (let i = 0; i < 300; i++) {
      const { link, peer } = await fake.pair();
      const base = i % 2 === 0 ? piece : (messages[i % messages.length] ?? piece);
      if (i % 3 === 0) FakePrimary.sendEpoch(peer, [streamHeaders, checkpointRecord], {});
      peer.send(mutate(base, random, messages[(i * 3) % messages.length] ?? piece));
      peer.close(1000);
      const end = await readEpoch(link).then(
        () => 'whole',
        (thrown: unknown) => (thrown instanceof RomulusError ? codeOf(thrown) : String(thrown)),
      );
      counts.set(end, (counts.get(end) ?? 0) + 1);
      const lost = await lostOf(link);
      expect(lost.code).to.be.oneOf([
        'LINK_CLOSED',
        'BAD_MESSAGE',
        'DIGEST_MISMATCH',
        'INTERNAL',
        'UNKNOWN_DOMAIN',
        'PROTOCOL_VERSION', // of a hello or welcome whose version was hit
      ]);
    }
    const untyped = [...counts.keys()].filter(
      (end) => !/^([A-Z_]+|whole|Error: the stream broke)$/.test(end),
    );
    expect(untyped).to.deep.equal([]);
    expect(counts.get('whole')).to.be.greaterThan(20);
  });

  describe('a secondary that does not keep to the protocol', () => {
    const hello = encodeControl({
      kind: 'hello',
      ...helloOf(),
      protocolVersion: PROTOCOL_VERSION,
      software: 't',
    });
    const cases: [string, Buffer | string, ChannelError['code']][] = [
      ['text', 'hello', 'BAD_MESSAGE'],
      ['a stream piece', Buffer.concat([Buffer.from([2]), checkpointRecord]), 'BAD_MESSAGE'],
      ['a second hello', hello, 'BAD_MESSAGE'],
      ['an acknowledgement of nothing', encodeControl({ kind: 'ack', epoch: 0 }), 'BAD_MESSAGE'],
      ['64 KiB and one more', Buffer.alloc(64 * 1024 + 1, 1), 'MESSAGE_TOO_LARGE'],
      ['a megabyte', Buffer.alloc(MIB, 1), 'MESSAGE_TOO_LARGE'],
    ];
    for (const [what, message, code] of cases) {
      it(`${what}: ${code}, and the primary takes the next`, async () => {
        const test = await primaryOf();
        const linked = test.nextLink();
        const peer = new WebSocket(test.url, [SUBPROTOCOL], { perMessageDeflate: false });
        peer.on('error', () => undefined);
        peer.on('open', () => {
          peer.send(hello);
        });
        const link: PrimaryLink = await linked;
        const closed = new Promise<number>((resolve) => peer.on('close', resolve));
        peer.send(message);
        expect((await lostOf(link)).code).to.equal(code);
        expect(await closed).to.be.oneOf(code === 'BAD_MESSAGE' ? [4007] : [1009, 4008]);
        const { secondary } = await test.pair();
        expect(secondary.welcome.streamUuid).to.equal(link.streamUuid);
      });
    }
  });
});
