// The parts of a standby that need no QEMU: the way back, the pace of trials, what a reset writes, what a guest may write.

import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import { codeOf } from '../../../src/errors.js';
import { PlainAccess } from '../../../src/hypervisor/qemu/memory/ram-access.js';
import { writeFrames } from '../../../src/hypervisor/qemu/memory/ram-file.js';
import { ResetFrames, framesIn } from '../../../src/hypervisor/qemu/memory/reset-frames.js';
import { TrialPace } from '../../../src/hypervisor/qemu/state/held-checkpoints.js';
import { Undo } from '../../../src/hypervisor/qemu/memory/undo.js';
import { writableBlocksIn } from '../../../src/hypervisor/qemu/state/full-state.js';
import { PAGE_SIZE } from '../../../src/stream/format.js';

const PAGES = 64;

describe('qemu: the parts of a standby', () => {
  let folder = '';
  let file = '';
  let fd = -1;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'romulus-parts-'));
    file = join(folder, 'ram');
    writeFileSync(file, Buffer.alloc(PAGES * PAGE_SIZE, 1));
    fd = openSync(file, 'r+');
  });
  afterEach(() => {
    closeSync(fd);
    rmSync(folder, { recursive: true });
  });

  describe('the way back', () => {
    const epochs = fc.array(
      fc.array(fc.tuple(fc.nat(PAGES - 1), fc.integer({ min: 2, max: 255 })), { maxLength: 40 }),
      { maxLength: 6 },
    );

    it('leads to what RAM was when it was cleared, and forward again', async () => {
      await fc.assert(
        fc.asyncProperty(epochs, epochs, async (before, after) => {
          const undo = new Undo(new PlainAccess(fd), PAGES, PAGES * PAGE_SIZE);
          const write = async (batches: typeof before): Promise<void> => {
            for (const batch of batches) {
              const gfns = Uint32Array.from(batch, ([pfn]) => pfn);
              const data = Buffer.concat(batch.map(([, fill]) => Buffer.alloc(PAGE_SIZE, fill)));
              await undo.keep(gfns, gfns.length);
              writeFrames(fd, gfns, gfns.length, data);
            }
          };
          await write(before);
          undo.clear();
          const good = readFileSync(file);
          await write(after);
          const last = readFileSync(file);
          expect(undo.pages).to.equal(new Set(after.flat().map(([pfn]) => pfn)).size);
          await undo.swap();
          expect(readFileSync(file).equals(good)).to.equal(true);
          await undo.swap();
          expect(readFileSync(file).equals(last)).to.equal(true);
        }),
        { numRuns: 200 },
      );
    });

    it('is limited: beyond it there is none, until it begins anew', async () => {
      const undo = new Undo(new PlainAccess(fd), PAGES, 10 * PAGE_SIZE);
      await undo.keep(
        Uint32Array.from({ length: 10 }, (_, k) => k),
        10,
      );
      expect(undo.overflown).to.equal(false);
      await undo.keep(Uint32Array.of(3, 4, 10), 3);
      expect(undo.overflown).to.equal(true);
      undo.clear();
      await undo.keep(Uint32Array.of(10), 1);
      expect(undo).to.deep.include({ overflown: false, pages: 1 });
    });
  });

  it('trials: each, the first only, or as many as take a twentieth of a core', () => {
    let now = 0;
    const due = (pace: TrialPace): boolean => pace.isDue(false);
    expect(due(new TrialPace('each'))).to.equal(true);
    expect(new TrialPace('first').isDue(true)).to.equal(false);
    const pace = new TrialPace('auto', () => now);
    let loads = 0;
    for (; now < 10_000; now += 20) {
      if (!due(pace)) continue;
      loads++;
      now += 5;
      pace.took(5);
    }
    expect((loads * 5) / 10_000).to.be.within(0.03, 0.05);
    pace.took(50);
    expect(due(pace)).to.equal(false);
    expect(pace.isDue(true), 'there is no way back').to.equal(true);
  });

  describe('what a reset writes', () => {
    it('is read from QEMU’s list', () => {
      const roms = [
        'fw=genroms/kvmvapic.bin size=0x002400 name="kvmvapic.bin"',
        'addr=0000000000200ff0 size=0x000020 mem=ram name="segment"',
        'addr=0000000000100000 size=0x001000 mem=ram name="vmlinux"',
        'addr=00000000fffc0000 size=0x040000 mem=rom name="bios-256k.bin"',
        '/rom@etc/acpi/tables size=0x200000 name="etc/acpi/tables"',
      ].join('\r\n');
      expect(framesIn(roms)).to.deep.equal(Uint32Array.of(0x100, 0x200, 0x201));
      const microvm = 'addr=00000000ffff0000 size=0x010000 mem=ram name="bios-microvm.bin"';
      expect(framesIn(microvm)).to.deep.equal(new Uint32Array(0));
      const high = 'addr=0000000100000000 size=0x001000 mem=ram name="x"';
      expect(() => framesIn(high))
        .to.throw()
        .satisfies((error: unknown) => codeOf(error) === 'BAD_CONFIGURATION');
    });

    it('is put back until there is no QEMU that resets', async () => {
      const frames = new ResetFrames(new PlainAccess(fd));
      frames.learn(Uint32Array.of(2, 3, 9));
      const spoil = (): void => writeFrames(fd, Uint32Array.of(2, 9), 2, Buffer.alloc(2 * PAGE_SIZE, 0xee));
      const truth = readFileSync(file);
      await frames.keep();
      spoil();
      await frames.keep(); // what is there now is no truth
      spoil();
      await frames.putBack();
      expect(readFileSync(file).equals(truth)).to.equal(true);
      spoil();
      await frames.putBack();
      expect(readFileSync(file).equals(truth)).to.equal(false);
    });
  });

  it('memory that a guest may write beside its RAM is found in QEMU’s tree', () => {
    const q35 = [
      '  0000000000000000-00000000000bffff (prio 0, ram): pc.ram',
      '  00000000000c0000-00000000000dffff (prio 1, rom): pc.rom',
      '  00000000000e0000-00000000000fffff (prio 0, rom): pc.bios @0000000000020000',
      '  0000000000100000-0000000003ffffff (prio 0, ram): pc.ram @0000000000100000',
      '  00000000fec00000-00000000fec00fff (prio 0, i/o): ioapic',
    ];
    expect(writableBlocksIn(q35.join('\r\n'), 'pc.ram')).to.deep.equal([]);
    const microvm = [...q35, '  00000000ffff0000-00000000ffffffff (prio 0, ram): pc.bios'];
    expect(writableBlocksIn(microvm.join('\r\n'), 'pc.ram')).to.deep.equal(['pc.bios']);
  });
});
