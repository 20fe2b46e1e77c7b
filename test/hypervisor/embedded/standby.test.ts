// A machine saved in one thread goes on in another, exactly where it was; and can be saved again from there.

import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { Bitmap } from '../../../src/hypervisor/bitmap.js';
import {
  openEmbeddedSource,
  openEmbeddedTarget,
  type EmbeddedConfig,
} from '../../../src/hypervisor/embedded/index.js';
import type { SourceDomain, TargetDomain } from '../../../src/hypervisor/port.js';
import { PAGE_SIZE } from '../../../src/stream/format.js';
import { MIB, Console, expectCode, firstEvent, withImage } from '../support.js';
import { allFrames, builtin, copyRam, standbyOf } from './support.js';

describe('embedded: a standby', () => {
  const config = builtin({ workingSetPages: 256, dirtyPages: 64, tickMs: 5 }, 4 * MIB);
  const machines: SourceDomain[] = [];
  const keep = <T extends SourceDomain>(machine: T): T => {
    machines.push(machine);
    return machine;
  };
  afterEach(async () => {
    await Promise.all(machines.splice(0).map((machine) => machine.destroy()));
  });
  const running = async (what: EmbeddedConfig = config): Promise<[SourceDomain, Console]> => {
    const machine = keep(await openEmbeddedSource(what));
    const screen = new Console(machine);
    await machine.start();
    return [machine, screen];
  };

  it('goes on at the very next tick, its memory clean, whenever it is taken over; and from there again', async () => {
    let [machine, screen] = await running();
    await screen.untilText('tick 3 ok\n');
    for (let generation = 0; generation < 5; generation++) {
      await sleep(20 + Math.random() * 30); // any moment will do: mid-check, mid-rewrite, mid-line
      await machine.suspend();
      const standby = keep(await standbyOf(machine, config));
      const standbyScreen = new Console(standby);
      await machine.destroy();
      expect(standbyScreen.text).to.equal('');
      await standby.start();
      await standbyScreen.until(() => standbyScreen.ticks().length >= 5);
      // A line that one began the other ends: together they said what one machine would have said.
      const text = screen.text + standbyScreen.text;
      const ticks = [...text.matchAll(/^tick (\d+) ok$/gm)].map((match) => Number(match[1]));
      expect(ticks[0]).to.equal(1);
      expect(ticks).to.deep.equal(ticks.map((_, index) => index + 1));
      expect(text).to.match(/^(tick \d+ ok\n)+(t|ti|tic|tick|tick \d*|tick \d+ o?k?)?$/);
      standbyScreen.text = text;
      [machine, screen] = [standby, standbyScreen];
    }
  });

  it('takes a hundred checkpoints of a running machine, and is the last of them, octet for octet', async () => {
    const [machine, screen] = await running();
    await screen.untilText('tick 3 ok\n');
    const { p2mSize } = await machine.info();
    const standby = keep(await openEmbeddedTarget({ ...config, name: 'standby' }));
    const frames = await allFrames(machine);
    await standby.populate(frames, frames.length, new Uint32Array(frames.length));
    const slab = new Uint8Array(new SharedArrayBuffer(p2mSize * PAGE_SIZE));
    const dirty = new Bitmap(p2mSize, { shared: true });
    const list = new Uint32Array(p2mSize);
    await machine.enableLogDirty();
    let ram: Uint8Array = new Uint8Array(0);
    let context = new Uint8Array(0);
    for (let epoch = 0; epoch < 100; epoch++) {
      await machine.suspend();
      const stats = await machine.cleanLogDirty(dirty);
      if (epoch === 0) dirty.setAll();
      let count = 0;
      for (let pfn = dirty.next(0); pfn >= 0; pfn = dirty.next(pfn + 1)) list[count++] = pfn;
      if (epoch > 0) expect(count).to.equal(stats.dirtyCount);
      await machine.copyPages(list, count, slab, 0);
      context = new Uint8Array(await machine.hvmContext());
      if (epoch === 99) ram = await copyRam(machine);
      await machine.resume();
      await standby.writePages(list, count, slab);
      await standby.setHvmContext(context);
    }
    expect((await copyRam(standby)).equals(ram), 'RAM').to.equal(true);
    expect(Buffer.from(await standby.hvmContext()).equals(context), 'context').to.equal(true);
    const standbyScreen = new Console(standby);
    await standby.start();
    await standbyScreen.until(() => standbyScreen.ticks().length >= 3);
    expect(standbyScreen.text).to.not.include('BAD');
  });

  it('keeps serial input that the guest has not read yet', async () => {
    const [machine, screen] = await running(builtin({ workingSetPages: 16, dirtyPages: 1, tickMs: 300 }));
    await screen.untilText('tick 1 ok\n');
    await machine.input(Buffer.from('q')); // read at the next tick
    await machine.suspend();
    const standby = keep(
      await standbyOf(machine, builtin({ workingSetPages: 16, dirtyPages: 1, tickMs: 300 })),
    );
    const standbyScreen = new Console(standby);
    const ended = firstEvent(standby);
    await standby.start();
    expect(await ended).to.deep.equal({ kind: 'shutdown' });
    expect(standbyScreen.text).to.equal('bye\n');
  });

  it('goes on at the pace of before, though its clock is another', async () => {
    const what = builtin({ workingSetPages: 16, dirtyPages: 1, tickMs: 20 });
    const [machine, screen] = await running(what);
    await sleep(300); // so that the two threads' clocks differ by more than a few ticks
    await screen.untilText('tick 5 ok\n');
    await machine.suspend();
    const standby = keep(await standbyOf(machine, what));
    await sleep(200); // a standby's time stands still
    const standbyScreen = new Console(standby);
    const began = performance.now();
    await standby.start();
    await standbyScreen.until(() => standbyScreen.ticks().length >= 30);
    expect(performance.now() - began).to.be.within(450, 2500);
  });

  it('has the flags that the last instruction left, and not those of its own', async () => {
    // v86 computes flags from the last result when they are asked for. 5 - 2 leaves "not zero"; nothing in the loop
    // changes that, and each round looks:
    //
    //   mov eax, 5; sub eax, 2; mov dx, 0x3f8
    //   spin: jz bad; mov al, '.'; out dx, al; mov ecx, 20000; wait: loop wait; jmp spin
    //   bad:  mov al, 'B'; out dx, al; cli; hlt
    const code = Uint8Array.from([
      0xb8, 5, 0, 0, 0, 0x83, 0xe8, 2, 0x66, 0xba, 0xf8, 3, 0x74, 0x0c, 0xb0, 0x2e, 0xee, 0xb9, 0x20, 0x4e, 0,
      0, 0xe2, 0xfe, 0xeb, 0xf2, 0xb0, 0x42, 0xee, 0xfa, 0xf4,
    ]);
    await withImage(code, async (multiboot) => {
      const image: EmbeddedConfig = {
        name: 'flags',
        memoryBytes: 4 * MIB,
        guest: { kind: 'image', multiboot },
      };
      const [machine, screen] = await running(image);
      await screen.untilText('...');
      await machine.suspend();
      const standby = keep(await standbyOf(machine, image));
      const standbyScreen = new Console(standby);
      await standby.start();
      await standbyScreen.until(() => standbyScreen.text.includes('B') || standbyScreen.text.length > 20);
      expect(standbyScreen.text).to.match(/^\.+$/);
      // And again from there: the views that v86 puts in their place must not stay.
      await standby.suspend();
      const second = keep(await standbyOf(standby, image));
      const secondScreen = new Console(second);
      await second.start();
      await secondScreen.until(() => secondScreen.text.includes('B') || secondScreen.text.length > 20);
      expect(secondScreen.text).to.match(/^\.+$/);
    });
  });

  it('works with ACPI and its timers too', async () => {
    const acpi = { ...config, acpi: true };
    const [machine, screen] = await running(acpi);
    await screen.untilText('tick 3 ok\n');
    await machine.suspend();
    await expectCode(standbyOf(machine, config), 'BAD_CONTEXT');
    const standby = keep(await standbyOf(machine, acpi));
    const standbyScreen = new Console(standby);
    await standby.start();
    await standbyScreen.until(() => standbyScreen.ticks().length >= 5);
    expect(standbyScreen.text).to.not.include('BAD');
  });

  describe('is written to', () => {
    let target: TargetDomain & SourceDomain;
    beforeEach(async () => {
      target = keep(await openEmbeddedTarget(config));
    });

    it('only where it was populated, and is empty there', async () => {
      const page = new Uint8Array(PAGE_SIZE).fill(7);
      const gfns = new Uint32Array(2);
      await expectCode(target.writePages(Uint32Array.of(5), 1, page), 'NOT_POPULATED');
      await expectCode(target.clearPage(5), 'NOT_POPULATED');
      await expectCode(target.populate(Uint32Array.of(5, 1024), 2, gfns), 'FRAME_OUT_OF_RANGE');
      await target.populate(Uint32Array.of(5, 9), 2, gfns);
      expect([...gfns]).to.deep.equal([5, 9]);
      expect((await copyRam(target)).every((octet) => octet === 0)).to.equal(true);
      await target.writePages(Uint32Array.of(5), 1, page);
      await expectCode(target.writePages(Uint32Array.of(5, 9), 2, page), 'FAILED');
      const expected = Buffer.alloc(4 * MIB);
      expected.fill(7, 5 * PAGE_SIZE, 6 * PAGE_SIZE);
      expect((await copyRam(target)).equals(expected)).to.equal(true);
      await target.clearPage(5);
      expect((await copyRam(target)).every((octet) => octet === 0)).to.equal(true);
    });

    it('in any order, overlapping, and compared', async () => {
      const frames = await allFrames(target);
      const count = frames.length;
      const order = frames.slice().sort(() => Math.random() - 0.5);
      await target.populate(frames, count, new Uint32Array(count));
      const data = new Uint8Array(count * PAGE_SIZE);
      for (let at = 0; at < data.length; at += 64) data[at] = Math.random() * 256;
      const expected = Buffer.alloc(data.length);
      for (let k = 0; k < count; k++) {
        expected.set(data.subarray(k * PAGE_SIZE, (k + 1) * PAGE_SIZE), (order[k] ?? 0) * PAGE_SIZE);
      }
      // Calls that overlap are carried out in their order: the second half overwrites what was there before.
      const half = count / 2;
      await Promise.all([
        target.writePages(order, count, new Uint8Array(data.length).fill(1)),
        target.writePages(order.subarray(0, half), half, data),
        target.writePages(order.subarray(half), half, data.subarray(half * PAGE_SIZE)),
      ]);
      expect((await copyRam(target)).equals(expected)).to.equal(true);
      expect(await target.comparePages(order, count, data)).to.deep.equal([]);
      for (const place of [0, 255, 256, 700, 1023])
        data[place * PAGE_SIZE + 4095] = 1 + (data[place * PAGE_SIZE + 4095] ?? 0);
      expect(await target.comparePages(order, count, data)).to.deep.equal([0, 255, 256, 700, 1023]);
    });

    it('and does not start without a context', async () => {
      await expectCode(target.start(), 'WRONG_STATE');
      await expectCode(target.hvmContext(), 'WRONG_STATE');
      await expectCode(target.setHvmContext(Buffer.from('nonsense')), 'BAD_CONTEXT');
      await expectCode(target.start(), 'WRONG_STATE');
      await expectCode(target.setHvmParam({ index: 1n, value: 2n }), 'UNSUPPORTED');
      await expectCode(target.setTscInfo({ mode: 1, khz: 0, nsec: 0n, incarnation: 0 }), 'UNSUPPORTED');
      await expectCode(
        target.setCpuPolicy({ cpuid: new Uint8Array(24), msrs: new Uint8Array(0) }),
        'UNSUPPORTED',
      );
      await target.setTscInfo(await target.tscInfo());
      await target.setCpuPolicy(await target.cpuPolicy());
    });
  });
});
