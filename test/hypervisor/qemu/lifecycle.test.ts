// How a QEMU guest begins and ends: what is refused, and what becomes of a shutdown, a panic, a quit, a crash, a guest
// that somebody else stops.

import { expect } from 'chai';
import {
  openQemuSource,
  openQemuTarget,
  type QemuConfig,
  type QemuTarget,
} from '../../../src/hypervisor/qemu/index.js';
import type { Domain } from '../../../src/hypervisor/port.js';
import { Bitmap } from '../../../src/hypervisor/bitmap.js';
import { processesWith } from '../../support/processes.js';
import { Console, MIB, expectCode, firstEvent } from '../support.js';
import { until } from '../../support/until.js';
import { PATIENCE_MS, qemus } from './pair.js';
import { TEST_NAME, needQemu, tickGuest, withObedientGuest } from './support.js';

function hasMachine(standby: QemuTarget): boolean {
  try {
    return standby.machine.name !== '';
  } catch {
    return false;
  }
}

describe('qemu: the life of a domain', function () {
  const domains: Domain[] = [];
  const keep = <T extends Domain>(domain: T): T => {
    domains.push(domain);
    return domain;
  };
  before(function () {
    return needQemu(this);
  });
  afterEach(async () => {
    for (const domain of domains.splice(0)) await domain.destroy();
    expect(processesWith(TEST_NAME)).to.deep.equal([]);
  });
  const config = tickGuest({ dirty: 'compare', memoryBytes: 8 * MIB }, 'pages=64 dirty=8 tick_ms=10');

  it('stops and goes on, and says so; all that it said before is out', async () => {
    const domain = keep(await openQemuSource(config));
    const screen = new Console(domain);
    await expectCode(domain.suspend(), 'WRONG_STATE');
    await expectCode(domain.emulatorContext(), 'WRONG_STATE');
    const { inventory, ...info } = await domain.info();
    expect(inventory).to.include.keys('QEMU', 'machine', 'devices');
    expect(info).to.deep.equal({
      name: TEST_NAME,
      type: 2,
      p2mSize: 2048,
      state: 'created',
      hypervisor: 'qemu',
      versionMajor: domain.machine.qmp.version.major,
      versionMinor: domain.machine.qmp.version.minor,
    });
    await domain.start();
    await expectCode(domain.start(), 'WRONG_STATE');
    await expectCode(domain.cleanLogDirty(new Bitmap(2048)), 'LOG_DIRTY');
    await domain.enableLogDirty();
    await expectCode(domain.enableLogDirty(), 'LOG_DIRTY');
    await expectCode(domain.cleanLogDirty(new Bitmap(2047)), 'FAILED');
    await screen.untilText('tick 2 ok\n');
    for (let k = 0; k < 20; k++) {
      await domain.suspend();
      const said = screen.text;
      const first = new Bitmap(2048);
      const { dirtyCount } = await domain.peekLogDirty(first);
      expect((await domain.cleanLogDirty(first)).dirtyCount).to.equal(dirtyCount);
      expect((await domain.peekLogDirty(first)).dirtyCount).to.equal(0);
      expect(screen.text).to.equal(said);
      await domain.resume();
    }
    expect(domain.lastPause?.total).to.be.above(0);
    await domain.disableLogDirty();
    await expectCode(domain.disableLogDirty(), 'LOG_DIRTY');
    await domain.destroy();
    await domain.destroy();
    await expectCode(domain.resume(), 'DOMAIN_GONE');
    expect(screen.text).to.match(/^(tick \d+ ok\r?\n)+(t|ti|tic|tick|tick \d*|tick \d+ o?k?\r?)?$/);
  });

  it('obeys its serial port; a power-off is a shutdown, and what it said comes before', async () => {
    await withObedientGuest(async (image) => {
      const domain = keep(
        await openQemuSource({ ...config, arguments: ['-kernel', image], memoryBytes: 16 * MIB }),
      );
      const screen = new Console(domain);
      await domain.start();
      await screen.untilText('.');
      const event = firstEvent(domain);
      await domain.input(Buffer.from('p'));
      expect(await event).to.deep.equal({ kind: 'shutdown' });
      expect((await domain.info()).state).to.equal('shutdown');
      await expectCode(domain.suspend(), 'DOMAIN_GONE');
      expect(await firstEvent(domain)).to.deep.equal({ kind: 'shutdown' });
    });
  });

  it('is crashed by a panic', async () => {
    await withObedientGuest(async (image) => {
      const domain = keep(
        await openQemuSource({
          ...config,
          arguments: ['-kernel', image, '-device', 'pvpanic'],
          memoryBytes: 16 * MIB,
        }),
      );
      const screen = new Console(domain);
      await domain.start();
      await screen.untilText('.');
      const event = firstEvent(domain);
      await domain.input(Buffer.from('x'));
      expect(await event).to.deep.equal({ kind: 'crashed', reason: 'the guest panicked' });
    });
  });

  it('is shut down by quit, in mid-checkpoint', async () => {
    const domain = keep(await openQemuSource(config));
    await domain.start();
    await domain.suspend();
    const event = firstEvent(domain);
    void domain.machine.qmp.execute('quit').catch(() => undefined);
    expect(await event).to.deep.equal({ kind: 'shutdown' });
    await expectCode(domain.resume(), 'DOMAIN_GONE');
  });

  for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
    it(`is crashed by ${signal} to QEMU; a standby gets another QEMU, but not for ever`, async () => {
      const domain = keep(await openQemuSource(config));
      await domain.start();
      const event = firstEvent(domain);
      for (const pid of processesWith(TEST_NAME)) process.kill(pid, signal);
      expect(await event).to.have.property('kind', 'crashed');
      expect(await event)
        .to.have.property('reason')
        .that.includes(signal === 'SIGKILL' ? 'SIGKILL' : 'host-signal');
      await expectCode(domain.suspend(), 'DOMAIN_GONE');

      const standby = keep(await openQemuTarget(config));
      const setbacks: string[] = [];
      standby.warnings$.subscribe((setback) => setbacks.push(setback));
      const crashed = firstEvent(standby);
      for (let death = 1; death <= 4; death++) {
        const [pid] = qemus('standby');
        if (pid === undefined) throw new Error('there is no standby');
        process.kill(pid, signal);
        await until('it is noticed', () => setbacks.length === death, PATIENCE_MS);
        if (death < 4) await until('another QEMU', () => hasMachine(standby), PATIENCE_MS);
      }
      expect(await crashed).to.have.property('kind', 'crashed');
      expect(setbacks[0]).to.include(signal === 'SIGKILL' ? 'SIGKILL' : 'signal 15');
      await expectCode(standby.start(), 'DOMAIN_GONE');
    });
  }

  it('stays stopped if somebody else stopped it; one that somebody let run is no checkpoint', async () => {
    const domain = keep(await openQemuSource(config));
    const { qmp } = domain.machine;
    const running = async () => ((await qmp.execute('query-status')) as { running: boolean }).running;
    await domain.start();
    await qmp.execute('stop');
    await domain.suspend();
    await domain.emulatorContext();
    await domain.resume();
    expect(await running()).to.equal(false);
    await qmp.execute('cont');
    await domain.suspend();
    await domain.resume();
    expect(await running()).to.equal(true);
    await domain.suspend();
    await qmp.execute('cont');
    await expectCode(domain.emulatorContext(), 'WRONG_STATE');
    await expectCode(domain.resume(), 'WRONG_STATE');
    await domain.suspend();
    await domain.resume();
  });

  describe('is refused', () => {
    const refused: Record<string, [string, string[]]> = {
      'what QEMU does not know': ['not a valid device model', ['-device', 'nonsense']],
      'a graphics card': ['memory block', ['-device', 'VGA']],
      'what Romulus says itself': ['without -m,', ['-m', '1G']],
      'a writable flash': ['cannot be replicated', ['-drive', 'driver=null-co,size=4M,if=pflash']],
    };
    for (const [what, [text, more]] of Object.entries(refused)) {
      it(`with ${what}`, async () => {
        await expectCode(openQemuSource({ ...config, arguments: more }), 'BAD_CONFIGURATION', text);
      });
    }

    it('without the binary', async () => {
      const error = await expectCode(
        openQemuSource({ ...config, binary: 'qemu-system-abacus' }),
        'BAD_CONFIGURATION',
        'install',
      );
      expect(error.facts).to.deep.equal({ key: 'binary', value: 'qemu-system-abacus' });
    });

    it('with a tap that nobody has made', async () => {
      const network: QemuConfig['network'] = [
        { id: 'lan', backend: { kind: 'tap', interface: 'romulus-none' } },
      ];
      const error = await expectCode(
        openQemuSource({ ...config, network }),
        'BAD_CONFIGURATION',
        'ip tuntap',
      );
      expect(error.facts).to.deep.equal({ key: 'tap', value: 'romulus-none' });
    });

    it('but not with a disk that is read-only or shared', async () => {
      const disks = [
        ...['-drive', 'driver=null-co,size=1M,if=virtio,id=disk0'],
        ...['-drive', 'driver=null-co,size=1M,if=virtio,id=disk1,readonly=on'],
      ];
      keep(await openQemuSource({ ...config, arguments: disks, sharedDisks: ['disk0'] }));
    });
  });
});
