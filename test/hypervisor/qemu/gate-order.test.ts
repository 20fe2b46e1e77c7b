// The order in which a network interface's gate drives its filters: one call after another, a test in its place, discarding
// at once. The monitor is played by us.

import { mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { duplexPair, type Duplex } from 'node:stream';
import { expect } from 'chai';
import { asError } from '../../../src/errors.js';
import { QmpClient } from '../../../src/hypervisor/qemu/monitor/qmp.js';
import { NetdevGate } from '../../../src/hypervisor/qemu/network/netdev-gate.js';
import { DeviceStateFile } from '../../../src/hypervisor/qemu/state/device-state.js';

interface Command {
  readonly execute: string;
  readonly arguments?: Readonly<Record<string, unknown>>;
  readonly id: number;
}

/** Notes what it is asked for in short ("open off"), and answers, at once or when the test lets it. */
class PlayedMonitor {
  readonly asked: string[] = [];
  /** Called for each command before it is answered. */
  heard: (asked: string) => void = () => undefined;
  refusing = '';
  holding = false;
  readonly #socket: Duplex;
  readonly #held: (() => void)[] = [];

  constructor(socket: Duplex) {
    this.#socket = socket;
    this.#say({ QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 }, package: '' } } });
    createInterface(socket).on('line', (line) => this.#take(JSON.parse(line) as Command));
  }

  answerAll(): void {
    this.holding = false;
    for (const answer of this.#held.splice(0)) answer();
  }

  #take(command: Command): void {
    const { path, value, id: object } = command.arguments ?? {};
    const filter = typeof path === 'string' ? path.replace('/objects/romulus-lan-', '') : object;
    const asked = command.execute === 'qom-set' ? `${String(filter)} ${String(value)}` : command.execute;
    const { id } = command;
    const refused = asked === this.refusing;
    const answer = refused ? { error: { class: 'GenericError', desc: 'no' }, id } : { return: {}, id };
    this.asked.push(asked);
    this.heard(asked);
    if (this.holding) this.#held.push(() => this.#say(answer));
    else this.#say(answer);
  }

  #say(message: unknown): void {
    this.#socket.write(`${JSON.stringify(message)}\n`);
  }
}

const SEAL = ['open off', 'open on'];
const RELEASE = ['valve off', 'sealed off', 'sealed on', 'valve on'];
const HOLD = ['sealed on', 'open on', 'valve on'];
const PASS = ['valve off', 'sealed off', 'open off'];
const TEST = ['object-add', 'announce-self', ...SEAL, ...RELEASE, 'object-del'];

describe('qemu: the order of a network interface’s gate', () => {
  let folder = '';
  let capture: DeviceStateFile;
  let monitor: PlayedMonitor;
  let qmp: QmpClient;
  let gate: NetdevGate;

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'romulus-gate-'));
    const path = join(folder, 'frames');
    capture = new DeviceStateFile(openSync(path, 'wx+'), path);
    const [ours, theirs] = duplexPair();
    monitor = new PlayedMonitor(theirs);
    qmp = await QmpClient.open(ours);
    gate = await NetdevGate.open(qmp, 'lan');
    monitor.asked.length = 0;
    // The frame of a test leaves with its release.
    monitor.heard = (asked) => {
      if (asked === 'sealed off') writeFileSync(path, Buffer.alloc(100));
    };
  });
  afterEach(() => {
    qmp.close();
    capture.close();
    rmSync(folder, { recursive: true });
  });

  /** Resolves when what was asked for until now has reached the monitor. */
  const settled = async (): Promise<void> => {
    for (let turns = 0; turns < 5; turns++) await new Promise((resolve) => setImmediate(resolve));
  };

  it('its calls take effect one after another, in their order', async () => {
    monitor.holding = true;
    const calls = [gate.seal(0), gate.release(0), gate.restart(), gate.remove()];
    const asked: string[] = [];
    for (const expected of [SEAL, RELEASE, ['object-del', 'object-del', 'object-del', 'chardev-remove']]) {
      await settled();
      asked.push(...expected);
      expect(monitor.asked).to.deep.equal(asked);
      monitor.answerAll();
      monitor.holding = true;
    }
    await Promise.all(calls);
  });

  it('a call that fails fails by itself: the next ones are made', async () => {
    monitor.refusing = 'open off';
    const outcome = gate.seal(0).then(
      () => 'done',
      (error: unknown) => asError(error).message,
    );
    const next = gate.release(0);
    expect(await outcome).to.include('QEMU refused qom-set');
    await next;
    expect(monitor.asked).to.deep.equal([...SEAL, ...RELEASE]);
  });

  it('discarding waits for nothing, and is final', async () => {
    monitor.holding = true;
    const sealing = gate.seal(0);
    await settled();
    const discarding = gate.discard();
    await settled();
    expect(monitor.asked).to.deep.equal([...SEAL, 'set_link']);
    monitor.answerAll();
    await Promise.all([sealing, discarding, gate.release(0), gate.pass(), gate.hold()]);
    expect(monitor.asked.length).to.equal(SEAL.length + 1);
  });

  it('a test has its place among the calls; a gate that passes holds for it, and passes again, however it ends', async () => {
    const first = gate.selfTest(capture);
    const passing = gate.pass();
    await Promise.all([first, passing]);
    expect(monitor.asked.splice(0)).to.deep.equal([...TEST, ...PASS]);

    monitor.refusing = 'announce-self';
    const second = gate.selfTest(capture).catch((error: unknown) => String(error));
    const holding = gate.hold();
    const sealing = gate.seal(0);
    await Promise.all([holding, sealing]);
    expect(await second).to.include('QEMU refused announce-self');
    const test = ['object-add', 'announce-self', 'object-del'];
    expect(monitor.asked).to.deep.equal([...HOLD, ...test, ...PASS, ...HOLD, ...SEAL]);
  });

  it('one whose filters could not be closed seals nothing, until they are', async () => {
    await gate.pass();
    monitor.refusing = 'valve on';
    const outcomes = await Promise.allSettled([gate.hold(), gate.seal(0)]);
    const reasons = outcomes.map((outcome) =>
      outcome.status === 'rejected' ? String(outcome.reason) : 'done',
    );
    expect(reasons[0]).to.include('QEMU refused qom-set');
    expect(reasons[1]).to.include('its filters could not be closed');
    monitor.refusing = '';
    await gate.hold();
    await gate.seal(0);
    expect(monitor.asked).to.deep.equal([...PASS, ...HOLD, ...HOLD, ...SEAL]);
  });

  it('one that passes at first is tested when it holds, until that was possible and went well, and then no more', async () => {
    await gate.pass();
    let possible = false;
    gate.testAtHold(async (test) => {
      if (!possible) return false;
      await test(capture);
      return true;
    });
    const outcomes: string[] = [];
    const holdAndPass = async (): Promise<void> => {
      const held = gate.hold().then(
        () => outcomes.push('held'),
        (error: unknown) => outcomes.push(asError(error).message),
      );
      await gate.tested();
      await held;
      outcomes.push(monitor.asked.splice(0).slice(HOLD.length).join(', '));
      await gate.pass();
      expect(monitor.asked.splice(0)).to.deep.equal(PASS);
    };
    expect(monitor.asked.splice(0)).to.deep.equal(PASS);
    await holdAndPass();
    possible = true;
    monitor.refusing = 'announce-self';
    await holdAndPass();
    monitor.refusing = '';
    await holdAndPass();
    await holdAndPass();
    expect(outcomes[2]).to.include('QEMU refused announce-self');
    outcomes[2] = 'refused';
    const refused = ['object-add', 'announce-self', 'object-del'].join(', ');
    expect(outcomes).to.deep.equal(['held', '', 'refused', refused, 'held', TEST.join(', '), 'held', '']);
  });

  it('whoever waits for the test of one that holds waits until it is done, and the calls after it, too', async () => {
    await gate.pass();
    const done: string[] = [];
    let finish = (): void => undefined;
    gate.testAtHold(() => new Promise((resolve) => (finish = () => resolve(true))));
    await gate.tested(); // nothing is to be tested yet
    const all = [
      gate.hold().then(() => done.push('held')),
      gate.tested().then(() => done.push('tested')),
      gate.seal(0).then(() => done.push('sealed')),
    ];
    await settled();
    expect(done).to.deep.equal([]);
    finish();
    await Promise.all(all);
    expect(done.toSorted()).to.deep.equal(['held', 'sealed', 'tested']);
    expect(monitor.asked).to.deep.equal([...PASS, ...HOLD, ...SEAL]);
  });

  it('one that is discarded is tested no more', async () => {
    await gate.pass();
    gate.testAtHold(() => Promise.reject(new Error('tested')));
    await Promise.all([gate.discard(), gate.hold()]);
    expect(monitor.asked).to.deep.equal([...PASS, 'set_link']);
  });
});
