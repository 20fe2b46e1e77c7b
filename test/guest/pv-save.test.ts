// Saving PV guests: what is deferred, what is fatal and when, and that a failure anywhere gives back all that was
// mapped, once.

import { expect } from 'chai';
import { saveOpsX86Pv } from '../../src/guest/x86-pv/save.js';
import { XEN_FRAMES } from '../memory/machine.js';
import type { MemoryPvCall } from '../memory/pv-domain.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { RecordType } from '../../src/stream/format.js';
import { readAll } from '../stream/streams.js';
import { contextView, setEntry, tableOf } from './pv-guest-view.js';
import { readPvImage } from './pv-image.js';
import { expectImage, snapshotOf } from './pv-snapshot.js';
import { failureOf, saveTrial, type Trial, trialGuest } from './pv-trial.js';

/** Offsets in vcpu_guest_context. */
const CONTEXT = { edx: 616, gdtFrames: 4832, gdtEntries: 4960, cr1: 4992, cr3: 5008 };

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
