// Disks in a stream that is restored: what is refused, what touches the images when, and what is left when it breaks.

import { expect } from 'chai';
import { HypervisorError } from '../../src/hypervisor/port.js';
import type { ColoRestoreOptions } from '../../src/restore/callbacks.js';
import { openRestore } from '../../src/restore/steps.js';
import { RecordType } from '../../src/stream/format.js';
import { concatenate, encodeRecord } from '../../src/stream/writer.js';
import { MemoryDisks } from '../memory/disks.js';
import { MemoryDomain } from '../memory/domain.js';
import { PAGES, imagesBefore, recordDisks } from '../save/disk-support.js';
import { sourceOf } from '../save/support.js';
import {
  DISKS,
  begin,
  causeOf,
  checkpoint,
  commit,
  end,
  epoch,
  errorOf,
  list,
  page,
  trial,
  writes,
} from './disk-streams.js';

describe('disks that are restored', () => {
  it('are written to as the first checkpoint comes, and then at each commit; each is a point', async () => {
    const one = await trial([list(), writes(1), epoch(1), epoch(2, writes(2), writes(3, 1)), end]);
    expect(one.images.isBlank(0)).to.equal(true);
    await one.steps.receive();
    expect([one.first(), one.images.record]).to.deep.equal([[1, 0], 'in between']);
    await one.steps.commit();
    await one.steps.receive();
    expect([one.first(), one.images.record]).to.deep.equal([[1, 0], { streamUuid: 'one', epoch: 0 }]);
    const committed = await one.steps.commit();
    expect(committed.kind === 'applied' && committed.applied).to.include({
      ...{ epoch: 1, records: 4, pages: 1 },
      bufferedBytes: 8 + page.length + 16 - 8 + 2 * (24 + 512),
    });
    expect(one.first()).to.deep.equal([2, 3]);
    expect((await one.steps.receive()).kind).to.equal('end');
    await one.steps.complete();
    expect(await one.steps.close(null)).to.equal(null);
    expect(one.images.calls).to.deep.equal(['in-place', 'committed one 0', 'committed one 1']);
  });

  it('are untouched until the first commit where they are staged', async () => {
    const one = await trial([list(), writes(1), epoch(1), epoch(2, writes(2))], { first: 'staged' });
    await one.steps.receive();
    expect([one.first(), one.images.record]).to.deep.equal([[0, 0], null]);
    await one.steps.commit();
    expect(one.first()).to.deep.equal([1, 0]);
    await commit(one);
    expect(one.first()).to.deep.equal([2, 0]);
    expect(one.images.calls[0]).to.equal('staged');
  });

  it('go on in another stream, staged until its first checkpoint is whole; broken before, they are as they were', async () => {
    const one = await trial([list(), writes(1), epoch(1)]);
    await commit(one);
    expect(await one.steps.receive()).to.deep.equal({ kind: 'broken', cause: null });
    expect(await one.steps.breakOff(null)).to.deep.equal({ kind: 'failover', epoch: 0 });
    await one.steps.close(null);
    expect((await errorOf(one.steps.resume(sourceOf(begin)))).code).to.equal('BAD_OPTIONS');

    await one.steps.resume(sourceOf(concatenate([begin, list(), writes(2), writes(3, 1), page])), 'two');
    expect((await one.steps.receive()).kind).to.equal('broken');
    await one.steps.breakOff(null);
    await one.steps.close(null);
    expect([one.first(), one.images.record]).to.deep.equal([[1, 0], { streamUuid: 'one', epoch: 0 }]);

    const third = [begin, list(), writes(4, 1), epoch(3), epoch(4, writes(5))];
    await one.steps.resume(sourceOf(concatenate(third)), 'three');
    await one.steps.receive();
    expect(one.first()).to.deep.equal([1, 0]);
    await one.steps.commit();
    expect([one.first(), one.images.record]).to.deep.equal([[1, 4], { streamUuid: 'three', epoch: 0 }]);
    await commit(one);
    expect([one.first(), one.images.record]).to.deep.equal([[5, 4], { streamUuid: 'three', epoch: 1 }]);
    expect(one.images.calls.filter((call) => !call.startsWith('committed'))).to.deep.equal([
      ...['in-place', 'staged', 'staged'],
    ]);
  });

  it('in another stream that are not the same end it, and what is held stays', async () => {
    const one = await trial([list(), epoch(1, writes(1))]);
    await commit(one);
    await one.steps.receive();
    await one.steps.breakOff(null);
    await one.steps.resume(sourceOf(concatenate([begin, list(DISKS.slice(1)), epoch(2)])), 'two');
    const cause = await causeOf(one);
    expect(cause.code).to.equal('DISKS_DIFFER');
    expect(await one.steps.breakOff(cause)).to.deep.equal({ kind: 'failover', epoch: -1, cause });
    expect(one.images.record).to.deep.equal({ streamUuid: 'one', epoch: 0 });
  });

  it('that fail at a commit fail it; those that are staged break the channel', async () => {
    const failure = new HypervisorError('FAILED', 'no room', { code: 'ENOSPC' });
    const one = await trial([list(), epoch(1), epoch(2, writes(2))]);
    await commit(one);
    await one.steps.receive();
    one.images.failure = failure;
    expect(await errorOf(one.steps.commit())).to.equal(failure);

    const first = await trial([list(), writes(1), epoch(1)]);
    first.images.failure = failure;
    expect(await errorOf(first.steps.receive())).to.equal(failure);

    const other = await trial([list(), epoch(1)]);
    await commit(other);
    await other.steps.receive();
    await other.steps.breakOff(null);
    await other.steps.resume(sourceOf(concatenate([begin, list(), writes(2), epoch(2)])), 'two');
    other.images.failure = failure;
    expect(await causeOf(other)).to.equal(failure);
  });

  it('that hang are an error: while they are copied, and at a commit', async () => {
    const options = { limitMs: 60 };
    const never = () => new Promise<never>(() => undefined);
    const copied = await trial([list(), writes(1), epoch(1)], options);
    copied.images.write = never;
    const first = await errorOf(copied.steps.receive());
    expect([first.code, first.facts]).to.deep.equal(['HUNG', { disk: 'root', limitMs: 60 }]);
    expect(await copied.steps.close(null)).to.equal(null);
    const one = await trial([list(), epoch(1), epoch(2, writes(2, 1))], options);
    await commit(one);
    one.images.write = never;
    await one.steps.receive();
    const second = await errorOf(one.steps.commit());
    expect([second.code, second.facts]).to.deep.equal(['HUNG', { disk: 'data', limitMs: 60 }]);
    expect(await one.steps.close(null)).to.equal(null);
  });

  it('are of the checkpoint that the domain goes back to, if it cannot be started from the next', async () => {
    const recording = await recordDisks({ seed: 5, checkpoints: 4, emulator: true });
    for (const checkpointsBack of [1, 2]) {
      const images = imagesBefore(recording);
      const domain = new MemoryDomain({ pages: PAGES, empty: true, disks: images, emulator: true });
      const refused = new HypervisorError('BAD_CONTEXT', 'it does not load');
      let asked = 0;
      const tried = () => (++asked < 4 ? Promise.resolve() : Promise.reject(refused));
      Object.assign(domain, { checkpointsBack, checkpoint: tried });
      const steps = await openRestore({
        ...{ domain, source: sourceOf(recording.octets), streamType: 'remus', callbacks: {} },
        disks: { streamUuid: 'one' },
      });
      for (let epochs = 0; epochs < 3; epochs++) await commit({ steps });
      await steps.receive();
      if (checkpointsBack === 1) {
        const outcome = { kind: 'failover', epoch: 2, cause: refused };
        expect(await steps.commit()).to.deep.equal({ kind: 'unusable', outcome });
      } else {
        const failure = await errorOf(steps.commit());
        expect(failure).to.deep.include({ code: 'NO_CONSISTENT_CHECKPOINT', cause: refused });
      }
      expect(images.record).to.deep.equal({ streamUuid: 'one', epoch: 2 });
      const was = recording.snapshots[2]?.disks ?? [];
      expect(
        images
          .imageCopies()
          .map((octets, disk) => Buffer.compare(octets, was[disk] ?? new Uint8Array(0)) === 0),
      ).to.deep.equal([...[true, true]]);
      expect(await steps.close(null)).to.equal(null);
    }
  });

  it('are not in a copy of the domain, which takes nothing of theirs', async () => {
    const one = await trial([list(), epoch(1, writes(1)), epoch(2, writes(2))]);
    await commit(one);
    const into = new MemoryDomain({ pages: 4, empty: true });
    const copied = await one.steps.copyTo(into);
    await copied.load();
    expect(copied.epoch).to.equal(0);
    expect(Buffer.compare(into.memory, one.domain.memory)).to.equal(0);
    await commit(one);
    expect(one.first()).to.deep.equal([2, 0]);
  });

  it('are refused in a stream of other disks, by name; and one without them for a domain with them', async () => {
    const differ: readonly (readonly [string, readonly Uint8Array[], string])[] = [
      ['one less', [list(DISKS.slice(0, 1))], 'the disks root (4096 octets)'],
      ['another size', [list([{ id: 'root', bytes: 512 }, ...DISKS.slice(1)])], 'root (512 octets)'],
      ['another name', [list([{ id: 'usr', bytes: 4096 }, ...DISKS.slice(1)])], 'usr (4096 octets)'],
      ['another order', [list([...DISKS].reverse())], 'data (1024 octets), root (4096 octets)'],
      ['none, and memory', [page], 'no replicated disks'],
      ['none, and a checkpoint', [checkpoint], 'no replicated disks'],
    ];
    for (const [what, records, named] of differ) {
      const one = await trial(records);
      const cause = await causeOf(one);
      expect(cause.code, what).to.equal('DISKS_DIFFER');
      expect(cause.facts['stream'], what).to.include(named);
      expect(cause.facts['domain']).to.equal('the disks root (4096 octets), data (1024 octets)');
      expect(await errorOf(one.steps.breakOff(cause))).to.equal(cause);
      expect(one.images.calls).to.deep.equal([]);
    }
  });

  it('are refused for a domain without them', async () => {
    for (const [streamType, records, code] of [
      ['remus', [list()], 'DISKS_DIFFER'],
      ['plain', [list()], 'DISKS_DIFFER'],
      ['remus', [writes(1)], 'UNEXPECTED_RECORD'],
    ] as const) {
      const domain = new MemoryDomain({ pages: 4, empty: true });
      const source = sourceOf(concatenate([begin, ...records]));
      const steps = await openRestore({ domain, source, streamType, callbacks: {} });
      expect((await causeOf({ steps })).code).to.equal(code);
    }
  });

  it('need their option, and are not for COLO', async () => {
    const domain = new MemoryDomain({ pages: 4, empty: true, disks: new MemoryDisks({ disks: DISKS }) });
    for (const streamType of ['remus', 'colo'] as const) {
      const colo = {} as ColoRestoreOptions;
      const opening = openRestore({ domain, source: sourceOf(begin), streamType, callbacks: {}, colo });
      expect((await errorOf(opening)).code).to.equal('BAD_OPTIONS');
    }
  });

  describe('from records that must not be', () => {
    const refused: readonly (readonly [string, string, readonly Uint8Array[]])[] = [
      ['a second list', 'UNEXPECTED_RECORD', [list()]],
      ['a disk that is not there', 'OUT_OF_DISK', [writes(1, 2)]],
      ['behind the end of a disk', 'OUT_OF_DISK', [writes(1, 1, 1024)]],
      ['across the end of a disk', 'OUT_OF_DISK', [writes(1, 1, 513)]],
      ['no form', 'BAD_RECORD', [encodeRecord(RecordType.DISK_WRITES, new Uint8Array(8))]],
      ['END in the middle of a checkpoint', 'UNEXPECTED_RECORD', [writes(1), end]],
    ];
    for (const [what, code, records] of refused) {
      it(`${what}: the checkpoint before stands`, async () => {
        const one = await trial([list(), epoch(1, writes(1)), ...records]);
        await commit(one);
        const cause = await causeOf(one);
        expect(cause.code).to.equal(code);
        expect(await one.steps.breakOff(cause)).to.deep.equal({ kind: 'failover', epoch: 0, cause });
        expect(one.first()).to.deep.equal([1, 0]);
      });
    }

    it('a list before the end of the static data, writes before the list', async () => {
      const headers = begin.subarray(0, 40);
      const images = new MemoryDisks({ disks: DISKS });
      for (const octets of [concatenate([headers, list()]), concatenate([begin, writes(1)])]) {
        const steps = await openRestore({
          domain: new MemoryDomain({ pages: 4, empty: true, disks: images }),
          ...{ source: sourceOf(octets), streamType: 'remus', callbacks: {} },
          disks: { streamUuid: 'one' },
        });
        expect((await causeOf({ steps })).code).to.equal('UNEXPECTED_RECORD');
      }
    });
  });
});
