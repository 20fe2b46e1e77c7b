// A state machine under virtual time: timers that its effects arm fire when the test moves the clock, and every effect
// is kept for the test to look at.

/** What an effect may carry that the clock or a transcript wants to know. */
interface AnyEffect {
  readonly kind: string;
  readonly timer?: string;
  readonly delayMs?: number;
  readonly epoch?: number | null;
  readonly decision?: string;
  readonly reason?: string;
  readonly code?: string;
  readonly role?: string;
  readonly how?: string;
}

type Unstamped<Event> = Event extends unknown ? Omit<Event, 'atMs'> : never;

export class VirtualMachine<State, Event extends { readonly kind: string }, Effect extends AnyEffect> {
  now = 1000;
  effects: Effect[] = [];
  private readonly timers = new Map<string, number>();

  constructor(
    private readonly step: (state: State, event: Event) => readonly [State, readonly Effect[]],
    public state: State,
    private readonly stamp: (event: Unstamped<Event>, atMs: number) => Event,
    private readonly timerEvent: (timer: string) => Unstamped<Event>,
  ) {}

  /** Gives the machine an event now; returns its effects. */
  give(event: Unstamped<Event>): readonly Effect[] {
    const [state, effects] = this.step(this.state, this.stamp(event, this.now));
    this.state = state;
    for (const effect of effects) {
      if (effect.timer === undefined) continue;
      if (effect.delayMs === undefined) this.timers.delete(effect.timer);
      else this.timers.set(effect.timer, this.now + effect.delayMs);
    }
    this.effects.push(...effects);
    return effects;
  }

  /** Moves the clock, firing what falls due on the way. */
  advance(ms: number): readonly Effect[] {
    const seen: Effect[] = [];
    const until = this.now + ms;
    for (;;) {
      let next: [string, number] | null = null;
      for (const entry of this.timers) if (entry[1] <= until && (!next || entry[1] < next[1])) next = entry;
      if (!next) break;
      this.timers.delete(next[0]);
      this.now = Math.max(this.now, next[1]);
      seen.push(...this.give(this.timerEvent(next[0])));
    }
    this.now = until;
    return seen;
  }

  /** The clock jumps and nothing fires: the process was stopped. */
  jump(ms: number): void {
    this.now += ms;
  }

  /** Milliseconds until the timer fires; null: it is off. */
  armed(timer: string): number | null {
    const at = this.timers.get(timer);
    return at === undefined ? null : at - this.now;
  }
}

/** The effects but those on timers, as words. */
export function words(effects: readonly AnyEffect[]): string[] {
  return effects
    .filter((effect) => effect.timer === undefined)
    .map(({ kind, epoch, decision, reason, code, role, how }) =>
      [kind, epoch?.toString(), decision, role, how, reason, code]
        .filter((word) => word !== undefined)
        .join(' '),
    );
}
