// Finding the p2m of a PV guest in both its shapes, refusing what cannot be one, and what happens when it moves.

import { expect } from 'chai';
import { MemoryMachine } from '../memory/machine.js';
import { buildPvGuest } from '../memory/pv-builder.js';
import { MemoryPvDomain } from '../memory/pv-domain.js';
import { RecordType } from '../../src/stream/format.js';
import { decodePvP2mFrames } from '../../src/stream/records/pv.js';
import { readAll } from '../stream/streams.js';
import { setEntry, SHARED, sharedView } from './pv-guest-view.js';
import { readPvImage } from './pv-image.js';
import { viewOf } from './pv-support.js';
import { expectImage, snapshotOf } from './pv-snapshot.js';
import { emptyDomain, failureOf, restoreTrial, saveTrial, type Trial, trialGuest } from './pv-trial.js';

describe('the p2m of a PV guest', () => {
  describe('is found', () => {
    for (const [what, spoil] of [
      ['no pfns', (t: Trial) => sharedView(t).setBigUint64(SHARED.maxPfn, 0n, true)],
      ['more pfns than there are', (t: Trial) => sharedView(t).setBigUint64(SHARED.maxPfn, 1n << 40n, true)],
      [
        'more pfns than a tree holds',
        (t: Trial) => sharedView(t).setBigUint64(SHARED.maxPfn, 1n << 31n, true),
      ],
      ['no frame list list', (t: Trial) => sharedView(t).setBigUint64(SHARED.frameListList, 0n, true)],
      [
        'a frame list list beyond the machine',
        (t: Trial) => sharedView(t).setBigUint64(SHARED.frameListList, 1n << 33n, true),
      ],
      ['a foreign frame list list', (t: Trial) => sharedView(t).setBigUint64(SHARED.frameListList, 5n, true)],
      ['a frame list of nothing', (t: Trial) => spoilTree(t, 'top', 0)],
      ['a foreign frame list', (t: Trial) => spoilTree(t, 'top', 6)],
      ['a page of nothing', (t: Trial) => spoilTree(t, 'list', 0)],
      ['a page beyond the machine', (t: Trial) => spoilTree(t, 'list', 0x7fffffff)],
      ['a page that is Xen’s', (t: Trial) => spoilTree(t, 'list', 7)],
    ] as const) {
      it(`as a tree, not with ${what}`, async () => {
        const trial = trialGuest();
        spoil(trial);
        const error = await failureOf(saveTrial(trial));
        expect(error.code).to.equal('BAD_P2M');
        expect(trial.machine.openMappings).to.equal(0);
        expect(trial.domain.state).to.equal('running');
      });
    }

    for (const [what, spoil] of [
      ['a bad root', (t: Trial) => sharedView(t).setBigUint64(SHARED.p2mCr3, 1n << 44n, true)],
      ['a foreign root', (t: Trial) => sharedView(t).setBigUint64(SHARED.p2mCr3, 5n << 12n, true)],
      [
        'an address that is not canonical',
        (t: Trial) => sharedView(t).setBigUint64(SHARED.p2mVaddr, 1n << 50n, true),
      ],
      [
        'an address in Xen’s range',
        (t: Trial) => sharedView(t).setBigUint64(SHARED.p2mVaddr, 0xffff800000000000n, true),
      ],
      [
        'an address at the very end',
        (t: Trial) => sharedView(t).setBigUint64(SHARED.p2mVaddr, 0xffffffffffffffffn, true),
      ],
      [
        'an address that is not mapped',
        (t: Trial) => sharedView(t).setBigUint64(SHARED.p2mVaddr, 0xffff900000000000n, true),
      ],
    ] as const) {
      it(`as a list, not with ${what}`, async () => {
        const trial = trialGuest({ p2m: 'list' });
        spoil(trial);
        const error = await failureOf(saveTrial(trial));
        expect(error.code).to.equal('BAD_P2M');
        expect(trial.machine.openMappings).to.equal(0);
      });
    }

    it('as a list of a 32-bit guest, not in Xen’s range or beyond the address space', async () => {
      for (const vaddr of [0xf5800000, 0xf57ff000, 0xfffff000]) {
        const trial = trialGuest({ width: 4, p2m: 'list', pfns: 1100 });
        sharedView(trial).setUint32(2332, vaddr, true);
        expect((await failureOf(saveTrial(trial))).code).to.equal('BAD_P2M');
      }
    });

    for (const width of [4, 8] as const) {
      it(`as a list of a ${width * 8}-bit guest, and cuts it where its page tables only repeat`, async () => {
        // As Linux does for what was never there: one page without frames, one table of it, again and again.
        const trial = trialGuest({ width, p2m: 'list' });
        const { domain, guest } = trial;
        const { p2mPfns } = guest.kernel.plan;
        const [missingPage = 0, missingTable = 0] = guest.dataPfns;
        const entry = (pfn: number): bigint => (BigInt(domain.mfnOf(pfn)) << 12n) | 1n;
        const frameOf = (table: number, index: number): number =>
          Number((viewOf(domain.octets(table)).getBigUint64(index * 8, true) >> 12n) & 0xffffffffn);
        const leaf = [...guest.tables].find(
          ([pfn, level]) => level === 1 && frameOf(pfn, 0) === domain.mfnOf(p2mPfns[0] ?? 0),
        )?.[0];
        const above = [...guest.tables].find(
          ([pfn, level]) => level === 2 && frameOf(pfn, 0) === domain.mfnOf(leaf ?? 0),
        )?.[0];
        if (leaf === undefined || above === undefined) throw new Error('nothing maps the p2m');
        domain.write(missingPage, new Uint8Array(4096).fill(0xff));
        for (let i = 0; i < 512; i++) {
          setEntry(trial, missingTable, i, entry(missingPage));
          if (i > 0) setEntry(trial, leaf, i, entry(missingPage));
        }
        for (const i of [1, 2, 3]) setEntry(trial, above, i, entry(missingTable));
        const perTable = 512 * (4096 / width);
        viewOf(domain.pv.sharedInfo).setUint32(width === 8 ? 3088 : 2316, 4 * perTable, true);
        expect(await endPfnOf(trial)).to.equal(perTable - 1);

        // The last one is another: all of it counts.
        setEntry(trial, above, 3, entry(leaf));
        await domain.resume();
        expect(await endPfnOf(trial)).to.equal(4 * perTable - 1);
      });
    }

    it('of two frame lists, and cuts it where the lists only repeat', async () => {
      // 512 pages of 512 entries are one list: these are three, and the last two are the same.
      const perList = 512 * 512;
      const machine = new MemoryMachine({ frames: 1200 });
      const domain = new MemoryPvDomain({ machine, pages: perList + 100 });
      const trial = holedGuest(machine, domain, perList + 100);
      const shared = sharedView(trial);
      const { p2m } = trial.guest.kernel.plan;
      if (p2m.kind !== 'tree') throw new Error('not a tree');
      expect(p2m.listPfns).to.have.length(2);
      // The guest says that it goes on, and lets the rest of its top page name the second list again and again.
      shared.setBigUint64(SHARED.maxPfn, BigInt(5 * perList), true);
      const second = BigInt(domain.mfnOf(p2m.listPfns[1] ?? 0));
      const top = domain.octets(p2m.topPfn);
      const view = new DataView(top.buffer, top.byteOffset, 4096);
      for (let i = 1; i < 5; i++) view.setBigUint64(i * 8, second, true);
      // All pages of the second list but its first are missing ones: the same page.
      const list = domain.octets(p2m.listPfns[1] ?? 0);
      const listView = new DataView(list.buffer, list.byteOffset, 4096);
      for (let i = 1; i < 512; i++) listView.setBigUint64(i * 8, listView.getBigUint64(0, true), true);

      expect(await endPfnOf(trial)).to.equal(2 * perList - 1);
    });
  });

  it('gives a live save up when the guest moves its linear p2m', async () => {
    const trial = trialGuest({ p2m: 'list' });
    let moved = false;
    trial.domain.script = (call) => {
      if (call !== 'copyPages' || moved) return;
      moved = true;
      trial.guest.kernel.countMove();
    };
    const error = await failureOf(saveTrial(trial, { live: true }));
    expect(error.code).to.equal('P2M_CHANGED');
    expect(error.facts).to.deep.equal({ before: 0n, now: 1n });
    expect(trial.machine.openMappings).to.equal(0);
  });

  for (const when of ['between two checkpoints', 'while it was being suspended'] as const) {
    it(`is found again when it was moved ${when}, and the stream says so`, async () => {
      const trial = trialGuest({ p2m: 'list' });
      const { domain, guest } = trial;
      const { p2mPfns } = guest.kernel.plan;
      const [movedTo = 0] = guest.dataPfns;
      const move = (): void => {
        // The p2m's first page is another one from now on.
        const from = p2mPfns[0] ?? 0;
        domain.write(movedTo, domain.octets(from).slice());
        const leaf = [...guest.tables.keys()].find((table) => {
          const words = domain.words(table);
          return (words[0] ?? 0) >>> 12 === domain.mfnOf(from) && guest.tables.get(table) === 1;
        });
        if (leaf === undefined) throw new Error('nothing maps the p2m');
        setEntry(trial, leaf, 0, (BigInt(domain.mfnOf(movedTo)) << 12n) | 1n);
        guest.kernel.countMove();
        // The old page says nothing any more.
        domain.write(from, new Uint8Array(4096).fill(0xff));
      };
      let last = snapshotOf(domain);
      const { octets } = await saveTrial(trial, {
        streamType: 'remus',
        checkpoints: 3,
        suspended: (epoch) => {
          if (epoch === 1 && when !== 'between two checkpoints') move();
          last = snapshotOf(domain);
        },
        between: (epoch) => {
          if (epoch === 0 && when === 'between two checkpoints') move();
        },
      });
      const lists = readAll(octets).filter(({ type }) => type === RecordType.X86_PV_P2M_FRAMES);
      expect(lists.map((record) => [...decodePvP2mFrames(record, 8).frames])).to.deep.equal([
        [...p2mPfns],
        [movedTo, ...p2mPfns.slice(1)],
      ]);
      expectImage(readPvImage(octets), last);
      const target = emptyDomain();
      await restoreTrial(octets, target, 'remus');
      expect(target.words(movedTo)[0]).to.equal(target.mfnOf(0));
    });
  }

  it('gives up between checkpoints when the guest has grown', async () => {
    const trial = trialGuest({ p2m: 'list' });
    const error = await failureOf(
      saveTrial(trial, {
        streamType: 'remus',
        checkpoints: 3,
        between: () => {
          sharedView(trial).setBigUint64(SHARED.maxPfn, 81n, true);
          trial.guest.kernel.countMove();
        },
      }),
    );
    expect(error.code).to.equal('P2M_CHANGED');
    expect(error.facts).to.deep.equal({ before: 80, now: 81 });
    expect(trial.machine.openMappings).to.equal(0);
  });
});

function spoilTree({ domain, guest }: Trial, page: 'top' | 'list', mfn: number): void {
  const { p2m } = guest.kernel.plan;
  if (p2m.kind !== 'tree') throw new Error('not a tree');
  const words = domain.words(page === 'top' ? p2m.topPfn : (p2m.listPfns[0] ?? 0));
  words[0] = mfn;
  words[1] = 0;
}

/** A guest whose memory lies at both ends of its pfns. */
function holedGuest(machine: MemoryMachine, domain: MemoryPvDomain, pfns: number): Trial {
  const holes = Array.from({ length: pfns - 800 }, (_, i) => 100 + i);
  const guest = buildPvGuest(domain, { pfns, p2m: 'tree', holes });
  domain.guest = guest.kernel;
  return { machine, domain, guest };
}

/** The last pfn that a save announces. */
async function endPfnOf(trial: Trial): Promise<number> {
  const { octets } = await saveTrial(trial);
  const frames = readAll(octets).find(({ type }) => type === RecordType.X86_PV_P2M_FRAMES);
  return frames === undefined ? -1 : decodePvP2mFrames(frames, trial.domain.pv.width).endPfn;
}
