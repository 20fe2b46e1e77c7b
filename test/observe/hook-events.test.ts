import { expect } from 'chai';
import { agentHookEvents, type HookEvent } from '../../src/observe/hooks/events.js';
import { failoverCompleted, failoverFailed, failoverStarted, FakeAgent, status } from '../service/fakes.js';

describe('hook events', () => {
  it('are failovers, of a standby', () => {
    const agent = new FakeAgent();
    const events: HookEvent[] = [];
    const subscription = agentHookEvents(agent).subscribe((one) => events.push(one));
    for (const one of [failoverStarted, failoverCompleted, failoverFailed]) agent.failover$.next(one);
    subscription.unsubscribe();
    expect(events.map((one) => one.event)).to.deep.equal([
      'failover-started',
      'failover-completed',
      'failover-failed',
    ]);
    expect(events[0]).to.include({ domain: 'web', epoch: 7, reason: 'HEARTBEAT_TIMEOUT', planned: false });
    expect(events[1]?.takeoverSeconds).to.equal(0.01);
    expect(events[2]?.error?.code).to.equal('DOMAIN_GONE');
  });

  it('are fencings, of an owner', () => {
    const agent = new FakeAgent(status({ role: 'fenced', epochAcknowledged: 9 }));
    const events: HookEvent[] = [];
    const subscription = agentHookEvents(agent).subscribe((one) => events.push(one));
    const transition = { domain: 'web', link: 'down', reason: 'FENCED', atMs: 1 } as const;
    agent.transitions$.next({ ...transition, role: 'primary' });
    agent.transitions$.next({ ...transition, role: 'fenced' });
    subscription.unsubscribe();
    expect(events).to.have.length(1);
    expect(events[0]).to.include({ event: 'fenced', domain: 'web', epoch: 9, reason: 'FENCED' });
  });
});
