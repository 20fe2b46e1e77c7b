// Saving PV guests: what is deferred, what is fatal and when, how the p2m is found, and that a failure anywhere gives
// back all that was mapped, once.

import { expect } from 'chai';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { MemoryMachine, XEN_FRAMES } from '../../src/hypervisor/memory/machine.js';
import { buildPvGuest } from '../../src/hypervisor/memory/pv-builder.js';
import { MemoryPvDomain, type MemoryPvCall } from '../../src/hypervisor/memory/pv-domain.js';
import { saveOpsX86Pv } from '../../src/guest/x86-pv/save.js';
import { RecordType } from '../../src/stream/format.js';
import { decodePvP2mFrames } from '../../src/stream/records/pv.js';
import { readAll } from '../stream/streams.js';
import { readPvImage } from './pv-image.js';
import { expectImage, snapshotOf } from './pv-snapshot.js';
import { type Trial, emptyDomain, failureOf, restoreTrial, saveTrial, trialGuest } from './pv-trial.js';

/** Offsets in shared_info of a 64-bit guest. */
const SHARED = { maxPfn: 3088, frameListList: 3096, p2mCr3: 3112, p2mVaddr: 3120 };
const CONTEXT = { edx: 616, gdtFrames: 4832, gdtEntries: 4960, cr1: 4992, cr3: 5008 };

function sharedView({ domain }: Trial): DataView {
  const page = domain.pv.sharedInfo;
  return new DataView(page.buffer, page.byteOffset, page.byteLength);
}

function contextView({ domain }: Trial, vcpu = 0): DataView {
  const context = domain.pv.vcpus[vcpu]?.context ?? new Uint8Array(0);
  return new DataView(context.buffer, context.byteOffset, context.byteLength);
}

function tableOf({ guest }: Trial, level: number): number {
  return [...guest.tables].find(([, is]) => is === level)?.[0] ?? -1;
}

/** The guest writes an entry of one of its tables. */
function setEntry(trial: Trial, table: number, index: number, entry: bigint): void {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, entry, true);
  trial.domain.write(table, bytes, index * 8);
}

describe('the saver of PV guests', () => {
  it('has all nine functions', () => {
    expect(Object.keys(saveOpsX86Pv)).to.have.members([
      'pfnToGfn',
      'normalisePage',
      'setup',
      'staticData',
      'startOfStream',
      'startOfCheckpoint',
      'endOfCheckpoint',
      'checkVmState',
      'cleanup',
    ]);
  });

  it('defers a page table that maps a foreign frame while the guest runs', async () => {
    const trial = trialGuest();
    const { domain } = trial;
    const leaf = tableOf(trial, 1);
    await domain.start();
    setEntry(trial, leaf, 500, (BigInt(XEN_FRAMES - 1) << 12n) | 1n);
    const { octets } = await saveTrial(trial, {
      live: true,
      suspended: () => {
        setEntry(trial, leaf, 500, 0n);
      },
    });
    const firstPass = readPvImageOfFirstPass(octets);
    expect(firstPass.get(leaf)).to.equal(15);
    expectImage(readPvImage(octets), snapshotOf(domain));
  });

  it('gives up when the guest is suspended and the frame is still foreign', async () => {
    for (const width of [4, 8] as const) {
      const trial = trialGuest({ width });
      const leaf = tableOf(trial, 1);
      setEntry(trial, leaf, 500, (BigInt(XEN_FRAMES - 1) << 12n) | 1n);
      for (const live of [true, false]) {
        const error = await failureOf(saveTrial(trial, { live }));
        expect(error.code).to.equal('BAD_FRAME');
        expect(error.facts).to.include({ level: 1, index: 500, mfn: XEN_FRAMES - 1 });
        expect(trial.machine.openMappings).to.equal(0);
        if (trial.domain.state === 'suspended') await trial.domain.resume();
      }
    }
  });

  it('gives up on a superpage at once, even while the guest runs', async () => {
    const trial = trialGuest();
    const { domain, guest } = trial;
    const table = tableOf(trial, 2);
    const frame = BigInt(domain.mfnOf(guest.dataPfns[0] ?? 0));
    setEntry(trial, table, 300, (frame << 12n) | 0x81n);
    const error = await failureOf(saveTrial(trial, { live: true }));
    expect(error.code).to.equal('SUPERPAGE');
    expect(error.facts).to.include({ level: 2, index: 300 });
    expect(domain.state).to.equal('running');
  });

  it('gives up on an L4 table in a 32-bit guest', async () => {
    const trial = trialGuest({ width: 4 });
    const { domain, guest, machine } = trial;
    machine.types[domain.mfnOf(guest.dataPfns[0] ?? 0)] = 4;
    const error = await failureOf(saveTrial(trial, { live: true }));
    expect(error.code).to.equal('BAD_PAGE_TYPE');
    expect(error.facts).to.include({ level: 4, levels: 3 });
  });

  it('sends a page that was given back as none, and one that came back whole', async () => {
    const trial = trialGuest();
    const { domain, guest } = trial;
    const [gone = 0, back = 0] = guest.dataPfns;
    await domain.start();
    // Out of reach of the page tables first: Xen would not take it back else.
    for (const [table, level] of guest.tables) if (level === 1) domain.octets(table).fill(0);
    const giveBack = (pfn: number): void => {
      domain.punch(pfn);
      guest.kernel.setP2m(pfn, -1);
    };
    giveBack(back);
    let turns = 0;
    domain.script = (call) => {
      if (call !== 'copyPages' || turns++ > 0) return;
      giveBack(gone);
      guest.kernel.setP2m(back, domain.give(back));
      domain.write(back, Uint8Array.of(1, 2, 3));
    };
    const { octets } = await saveTrial(trial, { live: true });
    const image = readPvImage(octets);
    expectImage(image, snapshotOf(domain));
    expect(image.types.get(gone)).to.equal(15);
    expect(image.types.get(back)).to.equal(0);
  });

  for (const [what, code, spoil] of [
    ['start_info', 'BAD_FRAME', (t: Trial) => contextView(t).setBigUint64(CONTEXT.edx, 1n, true)],
    [
      'a GDT frame',
      'BAD_FRAME',
      (t: Trial) => contextView(t, 1).setBigUint64(CONTEXT.gdtFrames, 1n << 40n, true),
    ],
    [
      'too large a GDT',
      'BAD_VCPU',
      (t: Trial) => contextView(t).setBigUint64(CONTEXT.gdtEntries, 7169n, true),
    ],
    ['cr3', 'BAD_FRAME', (t: Trial) => contextView(t, 1).setBigUint64(CONTEXT.cr3, 3n << 12n, true)],
    ['cr1', 'BAD_FRAME', (t: Trial) => contextView(t).setBigUint64(CONTEXT.cr1, 3n << 12n, true)],
  ] as const) {
    it(`gives up on a vCPU with ${what} that is not the guest's`, async () => {
      const trial = trialGuest();
      const error = await failureOf(saveTrial(trial, { suspended: () => spoil(trial) }));
      expect(error.code).to.equal(code);
      expect(trial.machine.openMappings).to.equal(0);
    });
  }

  it('writes no record for state that a vCPU does not have, and none for one that is offline', async () => {
    const trial = trialGuest({ vcpus: 3 });
    const [, , third] = trial.domain.pv.vcpus;
    if (third !== undefined) third.online = false;
    const { octets } = await saveTrial(trial);
    const types = readAll(octets).map(({ type, body }) => `${type} ${body[0] ?? ''}`);
    const vcpuRecords = types.filter((entry) => /^(4|5|6|12) /.test(entry));
    expect(vcpuRecords).to.deep.equal(['4 0', '5 0', '6 0', '4 1', '5 1', '12 1']);
  });

  describe('finds the p2m', () => {
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

      const { octets } = await saveTrial(trial);
      const frames = readAll(octets).find(({ type }) => type === RecordType.X86_PV_P2M_FRAMES);
      if (frames === undefined) throw new Error('no frames');
      expect(decodePvP2mFrames(frames, 8).endPfn).to.equal(2 * perList - 1);
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

  it('finds a linear p2m again that was moved between two checkpoints, and says so in the stream', async () => {
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
      suspended: () => {
        last = snapshotOf(domain);
      },
      between: (epoch) => {
        if (epoch === 0) move();
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

  for (const streamType of ['plain', 'remus'] as const) {
    it(`cleans up exactly once when any call of the hypervisor fails (${streamType})`, async () => {
      const options = { streamType, live: true, checkpoints: 2 };
      const whole = trialGuest({ p2m: 'list' });
      await whole.domain.start();
      const from = whole.domain.calls;
      await saveTrial(whole, options);
      const { calls } = whole.domain;
      expect(calls - from).to.be.greaterThan(25);
      const failed = new Set<MemoryPvCall>();
      for (let fail = from; fail < calls; fail++) {
        const trial = trialGuest({ p2m: 'list' });
        await trial.domain.start();
        trial.domain.script = (call, number) => {
          if (number !== fail) return;
          failed.add(call);
          throw new HypervisorError('FAILED', 'as scripted', { number });
        };
        let cleanups = 0;
        const error = await failureOf(saveTrial(trial, { ...options, cleanedUp: () => cleanups++ }));
        const told = error.code === 'CLEANUP_FAILED' ? error.cause : error;
        expect((told as HypervisorError).facts).to.deep.equal({ number: fail });
        expect(cleanups, `call ${fail}`).to.equal(fail === from ? 0 : 1);
        expect(trial.machine.openMappings, `call ${fail}`).to.equal(0);
      }
      expect([...failed]).to.include.members([
        'pv.info',
        'pv.mapM2p',
        'pv.mapFrames',
        'pv.vcpuOnline',
        'pv.vcpuContext',
        'pv.vcpuExtended',
        'pv.vcpuXsave',
        'pv.vcpuMsrs',
      ]);
    });
  }
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

/** Page types of the first pass over the memory. */
function readPvImageOfFirstPass(octets: Uint8Array): Map<number, number> {
  const [first] = readAll(octets).filter(({ type }) => type === RecordType.PAGE_DATA);
  const body = first?.body ?? new Uint8Array(0);
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const types = new Map<number, number>();
  for (let i = 0; i < view.getUint32(0, true); i++) {
    const entry = view.getBigUint64(8 + i * 8, true);
    types.set(Number(entry & 0xffffffffn), Number(entry >> 60n));
  }
  return types;
}
