// Whether a guest can be saved, asked of a monitor that we play, while our own full states come and go.

import { createInterface } from 'node:readline';
import { duplexPair } from 'node:stream';
import { expect } from 'chai';
import { QmpClient } from '../../../src/hypervisor/qemu/monitor/qmp.js';
import { whyBlocked } from '../../../src/hypervisor/qemu/monitor/saveable.js';

const NO_PROTOCOL = 'Parameter "uri" expects a valid migration protocol';

/** A string is QEMU's refusal. */
type Answer = { readonly status?: string; readonly 'blocked-reasons'?: readonly string[] } | string;

describe('qemu: whether a guest can be saved', () => {
  let qmp: QmpClient | null = null;
  afterEach(() => qmp?.close());

  /** A monitor that gives these answers, each once, and the last of a command for ever. */
  async function monitor(script: Record<string, Answer[]>): Promise<QmpClient> {
    qmp?.close();
    const [ours, theirs] = duplexPair();
    const say = (message: unknown): boolean => theirs.write(`${JSON.stringify(message)}\n`);
    createInterface(theirs).on('line', (line) => {
      const { execute, id } = JSON.parse(line) as { execute: string; id: number };
      const answers = script[execute] ?? [];
      const answer = (answers.length > 1 ? answers.shift() : answers[0]) ?? {};
      const refusal = { class: 'GenericError', desc: answer };
      say(typeof answer === 'string' ? { error: refusal, id } : { return: answer, id });
    });
    say({ QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 }, package: '' } } });
    return (qmp = await QmpClient.open(ours));
  }

  it('it can, while a full state of ours is begun at any moment of the asking', async () => {
    const busy = { status: 'setup' };
    for (const script of [
      { 'query-migrate': [{}, busy, {}], migrate: [NO_PROTOCOL] },
      { 'query-migrate': [busy, busy, { status: 'completed' }, busy, {}], migrate: [NO_PROTOCOL] },
      {
        'query-migrate': [{}, busy, {}],
        migrate: ["There's a migration process in progress", NO_PROTOCOL],
      },
      { 'query-migrate': [{}], migrate: ['QEMU is in "postmigrate" due to previous migration'] },
    ]) {
      expect(await whyBlocked(await monitor(script))).to.equal(null);
    }
  });

  it('it cannot: in QEMU’s words, or because of a migration that does not end', async () => {
    const blocked = { 'query-migrate': [{ 'blocked-reasons': ['a device', 'another'] }] };
    expect(await whyBlocked(await monitor(blocked))).to.equal('a device; another');
    expect(await whyBlocked(await monitor({ migrate: ['State blocked by a device'] }))).to.include('blocked');
    const endless = await whyBlocked(await monitor({ 'query-migrate': [{ status: 'active' }] }));
    expect(endless).to.include('under way (active)');
  });
});
