// A guest that is reset on the host that took it over boots as it did at home: its firmware is there, and its tables.
// A standby is the whole machine, not only what a checkpoint carries.

import { expect } from 'chai';
import {
  openQemuSource,
  openQemuTarget,
  type QemuConfig,
  type QemuSource,
} from '../../../src/hypervisor/qemu/index.js';
import { RAM_ID } from '../../../src/hypervisor/qemu/config.js';
import { processesWith } from '../../support/processes.js';
import { QEMU } from '../../support/qemu.js';
import { until } from '../../support/until.js';
import { Console, MIB } from '../support.js';
import { blockContents, ramBlocks, type BlockContents } from './ram-blocks.js';
import { needQemu, ramOf, Replicator, TEST_NAME, tickGuest, withObedientGuest } from './support.js';

/** A card with an option ROM, where the bus has such. */
const NETWORK: QemuConfig['network'] = [{ id: 'net0', backend: { kind: 'user', options: 'restrict=on' } }];
const BOOT_MS = 60_000;
const CHECKPOINTS = 3;
const TICKS = 3;

/** A host: the domain as it runs there, and its console. */
interface Host {
  readonly domain: QemuSource;
  readonly console: Console;
  readonly name: string;
}

/** Of the last checkpoint. */
interface Hooks {
  readonly beforeLast?: () => unknown;
  readonly inPause?: () => unknown;
}

describe('qemu: a reset after a takeover', function () {
  this.timeout(3 * BOOT_MS);
  const domains: { destroy(): Promise<void> }[] = [];
  let hosts = 0;
  before(function () {
    return needQemu(this);
  });
  afterEach(async () => {
    for (const domain of domains.splice(0)) await domain.destroy();
  });

  /** The first host; its guest runs. */
  async function home(config: QemuConfig): Promise<Host> {
    const name = `${TEST_NAME}-host-${++hosts}-`;
    const domain = await openQemuSource({ ...config, name });
    domains.push(domain);
    const console = new Console(domain);
    await domain.start();
    return { domain, console, name };
  }

  /** The guest moves by a failover: a few checkpoints, and after the last of them its host is gone. */
  async function takeover(
    from: Host,
    config: QemuConfig,
    { beforeLast = () => undefined, inPause = () => undefined }: Hooks = {},
  ): Promise<Host> {
    const name = `${TEST_NAME}-host-${++hosts}-`;
    const target = await openQemuTarget({ ...config, name });
    domains.push(target);
    const console = new Console(target);
    const replicator = new Replicator(from.domain, target);
    await replicator.begin();
    for (let k = 1; k < CHECKPOINTS; k++) await replicator.checkpoint();
    await beforeLast();
    let ram: Uint8Array = Buffer.alloc(0);
    await replicator.checkpoint(async () => {
      ram = ramOf(from.domain);
      await inPause();
    });
    expect(ramOf(target).equals(ram), 'guest RAM').to.equal(true);
    await from.domain.destroy();
    await target.start();
    return { domain: target.source(), console, name };
  }

  async function ticksOn({ console }: Host): Promise<void> {
    const before = console.ticks().length;
    await until('ticks', () => console.ticks().length >= before + TICKS, BOOT_MS);
    expect(console.text).to.not.include('BAD');
  }

  /** It boots again: its ticks begin anew. */
  async function bootsAgain({ console }: Host, reset: () => Promise<unknown>): Promise<void> {
    const before = console.text.length;
    await reset();
    await until(
      'the guest boots again',
      () =>
        console.text.slice(before).includes(`tick 1 ok\n`) &&
        console.text.slice(before).includes('tick 3 ok\n'),
      BOOT_MS,
    );
    expect(console.text).to.not.include('BAD');
  }

  const reset = ({ domain }: Host) => domain.machine.qmp.execute('system_reset');

  for (const machine of ['q35', 'pc', 'microvm']) {
    it(`every memory block is what it was on the primary (${machine})`, async () => {
      const config = tickGuest({ machine, dirty: 'compare', network: NETWORK });
      const a = await home(config);
      if (machine !== 'microvm') await ticksOn(a); // where this guest does not boot
      let blocks: BlockContents[] = [];
      const b = await takeover(a, config, { inPause: async () => (blocks = await blocksOf(a)) });
      const firmware = blocks.find(({ names }) => names.includes('pc.bios'));
      expect(firmware?.filled).to.be.greaterThan(0);
      expect(await blocksOf(b)).to.deep.equal(blocks);
    });
  }

  for (const machine of ['q35', 'pc']) {
    it(`the guest boots again where it was taken over (${machine}: system_reset)`, async () => {
      const config = tickGuest({ machine, dirty: 'compare', network: NETWORK });
      const a = await home(config);
      await ticksOn(a);
      const b = await takeover(a, config);
      await ticksOn(b);
      await bootsAgain(b, () => reset(b));
      await bootsAgain(b, () => reset(b));
    });

    it(`the guest resets itself where it was taken over (${machine})`, async () => {
      await withObedientGuest(async (image) => {
        const config: QemuConfig = {
          ...{ name: TEST_NAME, memoryBytes: 16 * MIB, accelerator: 'tcg', machine, dirty: 'compare' },
          arguments: ['-kernel', image],
        };
        const says = async ({ domain, console }: Host, octet: string): Promise<void> => {
          const before = console.text.length;
          await domain.input(Buffer.from(octet));
          await until(`an answer to ${octet}`, () => console.text.length > before, BOOT_MS);
        };
        const a = await home(config);
        await until('the guest is there', () => a.console.text === '.', BOOT_MS);
        const b = await takeover(a, config);
        await says(b, 'a');
        await says(b, 'r'); // what it says then is said by one that has booted
        await says(b, 'a');
        expect(b.console.text).to.equal('...');
      });
    });
  }

  it('a reboot before the failover, and one after it', async () => {
    const config = tickGuest({ dirty: 'compare', network: NETWORK });
    const a = await home(config);
    await ticksOn(a);
    await bootsAgain(a, () => reset(a));
    const b = await takeover(a, config);
    await ticksOn(b);
    await bootsAgain(b, () => reset(b));
  });

  it('a failover in the midst of a reboot: the guest boots on the other host', async () => {
    const config = tickGuest({ dirty: 'compare', network: NETWORK });
    const a = await home(config);
    await ticksOn(a);
    const before = a.console.text.length;
    const ticked: string[] = [];
    const b = await takeover(a, config, {
      beforeLast: () => reset(a),
      inPause: () => ticked.push(a.console.text.slice(before)),
    });
    // At the last checkpoint the guest is in its firmware.
    expect(ticked.join('')).to.not.include('tick 1 ok');
    await until('the guest boots', () => b.console.text.includes('tick 3 ok\n'), BOOT_MS);
    expect(b.console.text).to.include('tick 1 ok\n').and.not.include('BAD');
    await bootsAgain(b, () => reset(b));
  });

  it('a chain of two failovers with a reboot on each host', async () => {
    const config = tickGuest({ dirty: 'compare', network: NETWORK });
    const a = await home(config);
    await ticksOn(a);
    const b = await takeover(a, config);
    await ticksOn(b);
    await bootsAgain(b, () => reset(b));
    let blocks: BlockContents[] = [];
    const c = await takeover(b, config, { inPause: async () => (blocks = await blocksOf(b)) });
    await ticksOn(c);
    expect(await blocksOf(c)).to.deep.equal(blocks);
    await bootsAgain(c, () => reset(c));
  });
});

/** All but guest RAM. */
async function blocksOf({ domain, name }: Host): Promise<BlockContents[]> {
  const [pid] = processesWith(name).filter((each) => processesWith(QEMU).includes(each));
  if (pid === undefined) throw new Error(`there is no QEMU ${name}`);
  return blockContents(pid, await ramBlocks(domain.machine.qmp), RAM_ID);
}
