// A link between two ends in one process, over a real socket on loopback.

import { expect } from 'chai';
import { filter, firstValueFrom, take, toArray } from 'rxjs';
import { ChannelError, SUMS_MAX, type SecondaryLink } from '../../src/channel/contract.js';
import { SUM_BYTES } from '../../src/disk/sums.js';
import { codeOf } from '../../src/errors.js';
import { RecordType } from '../../src/stream/format.js';
import type { StreamRecord } from '../../src/stream/record.js';
import { StreamError } from '../../src/stream/error.js';
import { HEADROOM } from '../../src/stream/flow.js';
import { Cleanup } from '../support/cleanup.js';
import { until } from '../support/until.js';
import {
  STREAM,
  TestPrimary,
  bulkRecord,
  checkpointRecord,
  endRecord,
  errorOf,
  lostOf,
  pieceOf,
  streamHeaders,
} from './support.js';

const MIB = 1024 * 1024;

describe('link', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  async function primaryOf(options = {}): Promise<TestPrimary> {
    const primary = await new TestPrimary(options).start();
    cleanup.add(() => primary.listener.close());
    return primary;
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

  it('carries 50 MB in checkpoints, each acknowledged', async () => {
    const { primary, secondary } = await (await primaryOf()).pair();
    const acknowledged = firstValueFrom(
      primary.events$.pipe(
        filter((event) => event.kind === 'acknowledged'),
        take(5),
        toArray(),
      ),
    );
    const send = async () => {
      await primary.sink.write(pieceOf(streamHeaders));
      for (let epoch = 0; epoch < 5; epoch++) {
        primary.setOutputBytes(epoch, epoch * 11);
        for (let i = 0; i < 10; i++) await primary.sink.write(pieceOf(bulkRecord(1_000_000, epoch)));
        await primary.sink.write(pieceOf(checkpointRecord));
        await primary.sink.boundary(epoch, false);
      }
      await primary.sink.drain();
      expect(primary.bufferedBytes).to.equal(0);
    };
    const receive = async () => {
      expect((await secondary.source.headers()).domainType).to.equal(2);
      for (let epoch = 0; epoch < 5; epoch++) {
        const { records, boundary } = await readEpoch(secondary);
        expect(records.length).to.equal(11);
        expect(records.every(({ body }, i) => i === 10 || body.every((octet) => octet === epoch))).to.equal(
          true,
        );
        expect(boundary).to.include({ epoch, end: false, outputBytes: epoch * 11 });
        expect(boundary.bytes).to.equal(10 * 1_000_008 + 8 + (epoch === 0 ? streamHeaders.length : 0));
        await secondary.acknowledge(epoch);
      }
    };
    await Promise.all([send(), receive()]);
    expect(await acknowledged).to.deep.equal(
      [0, 1, 2, 3, 4].map((epoch) => ({ kind: 'acknowledged', epoch })),
    );
    expect(secondary.welcome).to.include({ windowEpochs: 1, continuous: false });
  });

  it('says which checkpoint is to be tried, which is the last, and when nothing more is let out', async () => {
    const { primary, secondary } = await (await primaryOf()).pair();
    const said = firstValueFrom(secondary.events$.pipe(filter((event) => event.kind === 'handed-over')));
    await primary.sink.write(pieceOf(streamHeaders));
    primary.setTrial(0);
    primary.setHandOver(1);
    const marks: unknown[] = [];
    for (let epoch = 0; epoch < 2; epoch++) {
      await primary.sink.write(pieceOf(checkpointRecord));
      await primary.sink.boundary(epoch, false);
      if (epoch === 0) await secondary.source.headers();
      const { trial, handOver } = (await readEpoch(secondary)).boundary;
      marks.push({ trial, handOver });
      await secondary.acknowledge(epoch);
    }
    expect(marks).to.deep.equal([
      { trial: true, handOver: false },
      { trial: false, handOver: true },
    ]);
    primary.handedOver(1);
    expect(await said).to.deep.equal({ kind: 'handed-over', epoch: 1 });
  });

  it('tells the sums of chunks, and what is durable', async () => {
    const { primary, secondary } = await (await primaryOf()).pair();
    const range = { disk: 1, first: 70_000, count: SUMS_MAX };
    const sums = Uint8Array.from({ length: SUMS_MAX * SUM_BYTES }, (_, index) => index % 251);
    const asked = primary.sums(range);
    expect(
      await firstValueFrom(secondary.sumsWanted$.pipe(filter((wanted) => wanted !== null))),
    ).to.deep.equal(range);
    // Whoever looks late sees it as well.
    expect(await firstValueFrom(secondary.sumsWanted$)).to.deep.equal(range);
    secondary.answerSums(range, sums);
    expect(await asked).to.deep.equal(sums);
    expect(await firstValueFrom(secondary.sumsWanted$)).to.equal(null);
    const told = firstValueFrom(primary.events$.pipe(filter((event) => event.kind === 'durable')));
    const point = { streamUuid: STREAM, epoch: 7 };
    secondary.durable(point);
    expect(await told).to.deep.equal({ kind: 'durable', point });
  });

  it('sums that were not asked for are out of turn, and who waits for some is told that the link is lost', async () => {
    const { primary, secondary } = await (await primaryOf()).pair();
    const asked = primary.sums({ disk: 0, first: 0, count: 2 }).catch((error: unknown) => codeOf(error));
    secondary.answerSums({ disk: 0, first: 1, count: 2 }, new Uint8Array(2 * SUM_BYTES));
    expect(await asked).to.equal('BAD_MESSAGE');
    expect(await primary.sums({ disk: 0, first: 0, count: 2 }).catch(codeOf)).to.equal('BAD_MESSAGE');
  });

  it('handed over behind a checkpoint that was not the last is out of turn', async () => {
    const { primary, secondary } = await (await primaryOf()).pair();
    const lost = firstValueFrom(secondary.events$.pipe(filter((event) => event.kind === 'lost')));
    primary.handedOver(0);
    expect((await lost).error.code).to.equal('BAD_MESSAGE');
  });

  it('sends pieces from shared memory where they lie, touching only the headroom', async () => {
    const { primary, secondary } = await (await primaryOf()).pair();
    const memory = new Uint8Array(new SharedArrayBuffer(4096));
    const body = Buffer.concat([streamHeaders, bulkRecord(64, 9), endRecord]);
    const start = 100;
    memory.set(body, start);
    const before = memory.slice();
    await primary.sink.write({ memory, start, end: start + body.length });
    await primary.sink.boundary(0, true);
    await primary.sink.drain();
    before.set(memory.subarray(start - HEADROOM, start), start - HEADROOM);
    expect(memory).to.deep.equal(before);
    const { records, boundary } = await readEpoch(secondary);
    expect(records.map(({ type }) => type)).to.deep.equal([RecordType.HVM_CONTEXT, RecordType.END]);
    expect(boundary).to.deep.include({ epoch: 0, end: true, bytes: body.length });
  });

  it('a domain that ends: what was sent is read to its end after the goodbye', async () => {
    const { primary, secondary } = await (await primaryOf()).pair();
    await primary.sink.write(pieceOf(streamHeaders, bulkRecord(MIB, 1), endRecord));
    await primary.sink.boundary(0, true);
    const lost = lostOf(secondary);
    expect(await primary.bye('domain-ended')).to.equal(true);
    expect((await lost).facts['bye']).to.equal('domain-ended');
    const { records, boundary } = await readEpoch(secondary);
    expect(records.length).to.equal(2);
    expect(boundary.end).to.equal(true);
    expect(await secondary.source.read()).to.equal(null);
    expect((await errorOf(secondary.acknowledge(0))).code).to.equal('LINK_CLOSED');
    expect(await firstValueFrom(secondary.events$.pipe(toArray()))).to.have.nested.property(
      '[0].reason',
      'domain-ended',
    );
    expect((await lostOf(primary)).facts['bye']).to.equal('domain-ended');
  });

  for (const reason of ['shutdown', 'domain-ended'] as const) {
    it(`goodbye of the secondary: ${reason}`, async () => {
      const { primary, secondary } = await (await primaryOf()).pair();
      const events = firstValueFrom(
        primary.events$.pipe(
          filter((event) => event.kind !== 'heard'),
          toArray(),
        ),
      );
      expect(await secondary.bye(reason)).to.equal(true);
      const [bye, lost, ...rest] = await events;
      expect(bye).to.deep.equal({ kind: 'bye', reason });
      expect(lost?.kind).to.equal('lost');
      expect(rest).to.deep.equal([]);
    });
  }

  it('a goodbye that crosses another is confirmed; one that crosses an error, or comes after the end, is not', async () => {
    const test = await primaryOf();
    const first = await test.pair();
    const both = [first.primary.bye('shutdown'), first.secondary.bye('shutdown')];
    expect(await Promise.all(both)).to.deep.equal([true, true]);
    const second = await test.pair();
    const crossed = second.primary.bye('shutdown');
    second.secondary.destroy(new ChannelError('BUFFER_LIMIT', 'too much'));
    expect(await crossed).to.equal(false);
    expect(await second.primary.bye('shutdown')).to.equal(false);
  });

  describe('back-pressure', () => {
    it('a secondary that does not read stops the primary, and both live', async () => {
      const receiveBufferBytes = 4 * MIB;
      const socketBufferBytes = 3 * MIB;
      const test = await primaryOf({ socketBufferBytes, heartbeatTimeoutMs: 300 });
      const { primary, secondary } = await test.pair({ receiveBufferBytes });
      const rssBefore = process.memoryUsage().rss;
      const piece = pieceOf(bulkRecord(MIB - 8, 5));
      let written = 0;
      let highest = 0;
      const total = 256;
      const sending = (async () => {
        await primary.sink.write(pieceOf(streamHeaders));
        // The memory belongs to the sink, which only reads it: one piece serves for all.
        for (; written < total; written++) {
          await primary.sink.write(piece);
          highest = Math.max(highest, primary.bufferedBytes);
        }
        await primary.sink.write(pieceOf(checkpointRecord));
        await primary.sink.boundary(0, false);
      })();
      await until('the secondary is full', () => secondary.bufferedBytes > receiveBufferBytes);
      // Longer than the silence that would end the link: both sides' heartbeats, or the pause, keep it.
      const heard = primary.events$.pipe(
        filter((event) => event.kind === 'heard'),
        take(12),
        toArray(),
      );
      expect((await firstValueFrom(heard)).length).to.equal(12);
      // What is under way: two limits, a message each, and what two kernels' sockets hold.
      expect(written).to.be.lessThan(32);
      expect(secondary.bufferedBytes).to.be.lessThan(receiveBufferBytes + 3 * MIB);
      expect(process.memoryUsage().rss - rssBefore).to.be.lessThan(150 * MIB);
      const { records } = await readEpoch(secondary);
      expect(records.length).to.equal(total + 1);
      await sending;
      expect(highest).to.be.at.most(socketBufferBytes);
      expect(await Promise.race([lostOf(primary), Promise.resolve('linked')])).to.equal('linked');
    });

    it('a record larger than both limits gets through alone', async () => {
      const test = await primaryOf({ socketBufferBytes: MIB });
      const { primary, secondary } = await test.pair({ receiveBufferBytes: MIB });
      const record = bulkRecord(10 * MIB, 3);
      const half = 5 * MIB;
      // Read from the start: who waits is served beyond the limit, while the kernel holds what nobody reads.
      const reading = readEpoch(secondary);
      // Cut in the middle, too: pieces are not trusted to end where records do.
      await primary.sink.write(pieceOf(streamHeaders, record.subarray(0, half)));
      await primary.sink.write(pieceOf(record.subarray(half), checkpointRecord));
      await primary.sink.boundary(0, false);
      const { records } = await reading;
      expect(records[0]?.body.length).to.equal(10 * MIB);
    });

    it('a message larger than the secondary takes ends the link on both sides', async () => {
      const { primary, secondary } = await (await primaryOf()).pair({ maxMessageBytes: MIB });
      const lost = [lostOf(primary), lostOf(secondary)];
      const writing = primary.sink
        .write(pieceOf(streamHeaders, bulkRecord(2 * MIB, 1)))
        .then(() => primary.sink.drain());
      await writing.catch((error: unknown) => {
        expect(error).to.be.instanceOf(ChannelError);
      });
      expect((await Promise.all(lost)).map(({ code }) => code)).to.deep.equal([
        'MESSAGE_TOO_LARGE',
        'MESSAGE_TOO_LARGE',
      ]);
      expect(await secondary.source.read()).to.equal(null);
    });
  });

  describe('loss', () => {
    it('of the primary: whole records and boundaries are delivered, then null', async () => {
      const { primary, secondary } = await (await primaryOf()).pair();
      await primary.sink.write(pieceOf(streamHeaders, bulkRecord(100, 1), checkpointRecord));
      await primary.sink.boundary(0, false);
      await primary.sink.write(pieceOf(bulkRecord(100, 2), bulkRecord(100, 3).subarray(0, 50)));
      await primary.sink.drain();
      const lost = lostOf(secondary);
      primary.destroy(new ChannelError('INTERNAL', 'for the test', { why: 'test' }));
      expect(await lost).to.deep.include({ code: 'INTERNAL', message: 'for the test' });
      expect((await lost).facts).to.include({ why: 'test' });
      expect((await readEpoch(secondary)).boundary.epoch).to.equal(0);
      expect((await secondary.source.read())?.body[0]).to.equal(2);
      expect(await secondary.source.read()).to.equal(null);
      expect((await errorOf(secondary.boundary())).code).to.equal('INTERNAL');
    });

    it('of the secondary: everything that waits at the primary is rejected', async () => {
      const test = await primaryOf({ socketBufferBytes: MIB });
      const { primary, secondary } = await test.pair({ receiveBufferBytes: MIB });
      const piece = pieceOf(bulkRecord(MIB, 1));
      const writing = (async () => {
        await primary.sink.write(pieceOf(streamHeaders));
        for (;;) await primary.sink.write(piece);
      })();
      await until('the secondary is full', () => secondary.bufferedBytes > MIB);
      await until('the primary is full', () => primary.bufferedBytes > 0);
      const drained = primary.sink.drain();
      secondary.destroy(new ChannelError('BUFFER_LIMIT', 'too much', {}));
      const errors = await Promise.all([errorOf(writing), errorOf(drained)]);
      expect(errors.map(({ code }) => code)).to.deep.equal(['BUFFER_LIMIT', 'BUFFER_LIMIT']);
      expect((await errorOf(primary.sink.boundary(0, false))).code).to.equal('BUFFER_LIMIT');
      // The domain may be linked again at once.
      const again = await test.pair();
      expect(again.secondary.peer).to.equal(`127.0.0.1:${test.port}`);
    });

    it('before the headers: a StreamError', async () => {
      const { primary, secondary } = await (await primaryOf()).pair();
      const headers = secondary.source.headers().catch((error: unknown) => error);
      await primary.bye('shutdown');
      expect(await headers)
        .to.be.instanceOf(StreamError)
        .with.property('code', 'TRUNCATED');
    });

    it('while boundary() and read() wait: both end', async () => {
      const { primary, secondary } = await (await primaryOf()).pair();
      await primary.sink.write(pieceOf(streamHeaders, checkpointRecord));
      await secondary.source.read();
      const waiting = errorOf(secondary.boundary());
      const reading = secondary.source.read();
      await primary.bye('shutdown');
      expect((await waiting).code).to.equal('LINK_CLOSED');
      expect(await reading).to.equal(null);
    });

    it('a stream that is none rejects read() and headers() with its own error', async () => {
      const { primary, secondary } = await (await primaryOf()).pair();
      await primary.sink.write(pieceOf(new Uint8Array(64)));
      const error = await secondary.source.headers().catch((thrown: unknown) => thrown);
      expect(error).to.be.instanceOf(StreamError).with.property('code', 'BAD_MARKER');
    });
  });
});
