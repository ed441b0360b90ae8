console.log("first");
export const first = 1;
