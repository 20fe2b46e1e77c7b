// The test guest in real machines: it boots, ticks, notices bad memory, counts for its clients, and powers off.

import { readFile } from 'node:fs/promises';
import { expect } from 'chai';
import type { GuestFiles } from '../../../../src/hypervisor/qemu/guest/build.js';
import { guestCommandLine } from '../../../../src/hypervisor/qemu/guest/command-line.js';
import { ensureGuest, GUEST_TIMEOUT_MS } from '../../../support/qemu.js';
import { type CounterClient, GuestMachine, type MachineType } from './machine.js';

const ADDRESS = '10.0.2.15/24'; // where QEMU's own network expects the guest
const CONNECTIONS_MAX = 256; // counter.h

/** Near enough for a guest that is tested: some hosts only say how fast the core is right now. */
async function hostTscKhz(): Promise<number> {
  const mhz = /^cpu MHz\s*: ([\d.]+)$/m.exec(await readFile('/proc/cpuinfo', 'utf8'))?.[1];
  return Math.round(Number(mhz ?? 2500) * 1000);
}

describe('qemu: the test guest', function () {
  this.timeout(120_000);
  let files: GuestFiles | null = null;
  let machine: GuestMachine | undefined;
  let counted = 0;

  before(async function () {
    this.timeout(GUEST_TIMEOUT_MS);
    files = await ensureGuest();
  });
  after(() => machine?.destroy());

  async function boot(
    context: Mocha.Context,
    type: MachineType,
    commandLine: string,
    networkCard = true,
  ): Promise<GuestMachine> {
    if (files === null) return context.skip();
    await machine?.destroy();
    machine = await GuestMachine.start(files, { type, commandLine, networkCard });
    return machine;
  }

  function running(context: Mocha.Context): GuestMachine {
    return machine ?? context.skip();
  }

  async function incrementOnce(client: CounterClient): Promise<void> {
    expect(await client.increment()).to.equal(String(++counted));
  }

  for (const type of ['microvm', 'q35'] as const) {
    describe(type, () => {
      it('boots to its first ticks', async function () {
        const tscKhz = type === 'microvm' ? { tscKhz: await hostTscKhz() } : {};
        const options = { ...tscKhz, address: ADDRESS, workingSetPages: 1024, dirtyPages: 100, tickMs: 20 };
        const guest = await boot(this, type, guestCommandLine(options));
        await guest.until(/^tick 1 ok$/m);
        console.log(`      ${type}: first tick after ${(guest.ageMs() / 1000).toFixed(1)} s`);
        expect(guest.text).to.include(`network ${ADDRESS}\n`);
        await guest.until(/^tick 5 .*\n/m);
        expect(guest.text).to.match(/^tick 1 ok\ntick 2 ok\ntick 3 ok\ntick 4 ok\ntick 5 ok\n/m);
        counted = 0;
      });

      it('counts for a client', async function () {
        const client = await running(this).connect();
        for (let k = 0; k < 100; k++) await incrementOnce(client);
        await client.close();
      });

      it('goes on counting for the next one, whatever pieces the lines come in', async function () {
        const guest = running(this);
        const client = await guest.connect();
        for (const piece of ['i', 'n', 'c\ni', 'nc\ninc\n', 'inc']) {
          client.socket.write(piece);
          await guest.ticks(1); // so that each piece goes by itself
        }
        expect(await client.lines(3)).to.deep.equal([1, 2, 3].map((k) => String(counted + k)));
        client.socket.end('\n');
        counted += 4;
        expect(await client.lines(2), 'one more, then the end').to.deep.equal([String(counted)]);
      });
    });
  }

  describe('its clients', () => {
    it('answers what is no "inc" with an error and the end', async function () {
      const client = await running(this).connect();
      client.socket.write('inc\ndec\ninc\n');
      expect(await client.lines(3)).to.deep.equal([String(++counted), 'error']);
    });

    it('gives each of 40,000 asked at once its number, and meanwhile serves another client and ticks', async function () {
      const guest = running(this);
      const greedy = await guest.connect();
      const count = 40_000;
      greedy.socket.pause();
      greedy.socket.write('inc\n'.repeat(count));
      const other = await guest.connect();
      const seen = [];
      for (let k = 0; k < 5; k++) seen.push(Number(await other.increment()));
      const ticks = await guest.ticks(3);
      expect(ticks).to.deep.equal([0, 1, 2].map((k) => (ticks[0] ?? 0) + k));
      greedy.socket.resume();
      const numbers = [...(await greedy.lines(count)).map(Number), ...seen].sort((a, b) => a - b);
      expect(numbers).to.have.lengthOf(count + 5);
      numbers.forEach((number, k) => {
        if (number !== counted + 1 + k) throw new Error(`${number} where ${counted + 1 + k} was due`);
      });
      counted += count + 5;
      await greedy.close();
      await other.close();
    });

    it(`serves ${CONNECTIONS_MAX} at once, and one more when another leaves`, async function () {
      const guest = running(this);
      const clients: CounterClient[] = [];
      try {
        for (let k = 0; k < CONNECTIONS_MAX; k++) {
          const client = await guest.connect();
          clients.push(client);
          await incrementOnce(client);
        }
        const [first] = clients;
        const last = await guest.connect();
        clients.push(last);
        last.socket.write('inc\n');
        await guest.ticks(3);
        expect(last.waiting, 'no place yet').to.equal(0);
        await first?.close();
        expect(await last.lines(1)).to.deep.equal([String(++counted)]);
      } finally {
        for (const client of clients) await client.close();
      }
    });
  });

  describe('its console', () => {
    it('a spoilt word is found until its page is rewritten', async function () {
      const guest = running(this);
      const from = guest.text.length;
      guest.input('b');
      await guest.until(/^tick \d+ BAD 1$/m, from);
      const bad = await guest.until(/^tick \d+ BAD 1\n(tick \d+ ok)$/m, from);
      expect(bad[1]).to.be.a('string');
      expect(guest.text.slice(from)).not.to.match(/BAD (?!1\n)/);
    });

    it('powers off when asked, having said everything', async function () {
      const guest = running(this);
      guest.input('q');
      expect(await guest.ended()).to.equal(0);
      expect(guest.text).to.match(/^bye$/m);
    });

    it('refuses what cannot be, and powers off', async function () {
      const commandLine = `${guestCommandLine({ address: ADDRESS })} unknown=1`;
      const guest = await boot(this, 'q35', commandLine, false);
      expect(await guest.ended()).to.equal(0);
      expect(guest.text).to.match(/^bad configuration: an address but no network interface$/m);
      expect(guest.text).not.to.match(/^tick/m);
    });

    it('a machine without network ticks', async function () {
      const guest = await boot(this, 'q35', guestCommandLine({ dirtyPages: 0, tickMs: 1 }), false);
      await guest.until(/^network none\ntick 1 ok\ntick 2 ok$/m);
      guest.input('q');
      expect(await guest.ended()).to.equal(0);
    });
  });
});
