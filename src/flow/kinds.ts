// What is told apart by its kind: events, and the effects that follow from them.

/** Of the effects, or events, those of one kind. */
export type Of<T extends { readonly kind: string }, Kind extends T['kind']> = T & { readonly kind: Kind };

/** What follows from an event of each kind, where it happens. */
export type Rules<Event extends { readonly kind: string }, Where extends readonly unknown[]> = {
  readonly [Kind in Event['kind']]: (event: Of<Event, Kind>, ...where: Where) => void;
};

export function follow<Event extends { readonly kind: string }, Where extends readonly unknown[]>(
  rules: Rules<Event, Where>,
  event: Event,
  ...where: Where
): void {
  const rule: (event: never, ...where: Where) => void = rules[event.kind as Event['kind']];
  rule(event as never, ...where);
}

/** A step that passes through several states on its way reports where it arrived: the last transition counts. */
export function withOneTransition<Effect extends { readonly kind: string }>(
  effects: readonly Effect[],
): readonly Effect[] {
  const last = effects.findLastIndex(({ kind }) => kind === 'transition');
  return effects.filter(({ kind }, index) => kind !== 'transition' || index === last);
}
